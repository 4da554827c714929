"""Tags: what is said of contents, the probes fitted to it, and what these find."""

import json

import numpy as np
import pytest

from fovea.search.errors import LibraryError, Unanswerable
from fovea.search.library.library import Library
from fovea.search.library.marks import mark
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.maintenance.keepsakes import exported, imported
from fovea.search.query import saved
from fovea.search.query.filters import allowed_images
from fovea.search.query.language import parse
from fovea.search.query.rank import rank
from fovea.search.query.saved import SearchRefused
from fovea.search.tags import scoring, stored
from fovea.search.tags.scoring import refresh, suggestions
from fovea.search.tags.stored import (
    MOST,
    Lesson,
    Said,
    TagRefused,
    examples_of,
    forget_tag,
    lessons,
    rename_tag,
    say,
    tag_named,
    tags,
    tags_of,
)

DIM = 16


def content(number):
    return number.to_bytes(32, "big")


class Pictures:
    """A library of unit vectors: every tenth one is a picture of Rex, near the first axis."""

    def __init__(self, library, tmp_path):
        self.library, self.root = library, library.add_root(tmp_path)
        self.model = library.set_model("toy", "a" * 64, DIM, "test")
        self.rng, self.count = np.random.default_rng(0), 0

    def add(self, count):
        images, files = [], []
        for _ in range(count):
            self.count += 1
            row = self.rng.standard_normal(DIM) * 0.18
            row[0 if self.is_rex(self.count) else self.rng.integers(1, DIM)] += 1
            row = (row / np.linalg.norm(row)).astype(np.float16)
            key = content(self.count)
            images.append(NewImage(key, 10, ImageMetadata(4, 4, "PNG"), row))
            path = f"{self.root.path.decode()}/{self.count}.png".encode()
            files.append(FileWrite(path, self.root.id, 10, 1, key))
        self.library.write_batch(WriteBatch(images, files, self.model.id))

    @staticmethod
    def is_rex(number):
        return number % 10 == 0

    def found(self, query):
        return {int(number) for number in allowed_images(self.library, parse(query).filters)}

    def teach(self, yes, no=()):
        say(self.library, "Rex", yes=map(content, yes), no=map(content, no))
        refresh(self.library)


@pytest.fixture
def pictures(library, tmp_path):
    made = Pictures(library, tmp_path)
    made.add(300)
    return made


REX = {number for number in range(1, 301) if number % 10 == 0}


def test_examples_find_others(pictures):
    pictures.teach([10, 20, 30, 40, 50], [1, 2])
    found = pictures.found("tag:rex")
    assert {10, 20, 30, 40, 50} <= found
    assert len(found & REX) >= 15 and len(found - REX) <= 3
    assert pictures.found("-tag:REX") == set(range(1, 301)) - found
    [tag] = tags(pictures.library)
    assert (tag.name, tag.yes, tag.no, tag.pictures) == ("Rex", 5, 2, len(found))
    assert tag.is_taught and not tag.by_label


def test_what_people_say_outweighs_what_the_probe_finds(pictures):
    pictures.teach([10, 20, 30, 40, 50])
    found = pictures.found("tag:rex")
    wrong, missed = min(found), min(set(range(1, 301)) - found)
    pictures.teach([missed], [wrong])
    found = pictures.found("tag:rex")
    assert missed in found and wrong not in found
    assert [tag.said for tag in tags_of(pictures.library, [missed])[missed]] == [True]
    assert [tag.said for tag in tags_of(pictures.library, [wrong])[wrong]] == [False]


def test_few_examples_find_no_others(pictures):
    pictures.teach([10, 20], [1])
    assert pictures.found("tag:rex") == {10, 20}
    assert not tag_named(pictures.library, "rex").is_taught
    assert suggestions(pictures.library, "rex").likely == ()


def test_new_pictures_are_scored_at_first_use_and_no_others(pictures, monkeypatch):
    pictures.teach([10, 20, 30, 40, 50])
    before = pictures.found("tag:rex")
    pictures.add(100)
    pages = []
    real = scoring.embedded_pages
    monkeypatch.setattr(
        scoring,
        "embedded_pages",
        lambda *a: (pages.append(len(p[0])) or p for p in real(*a)),
    )
    ranking = rank(pictures.library, None, None, parse("tag:rex"), limit=1000)
    found = set(ranking.ids.tolist())
    assert before < found and pages == [100]
    assert len({n for n in found - before if pictures.is_rex(n)}) >= 5
    rank(pictures.library, None, None, parse("tag:rex"), limit=1000)
    assert pages == [100], "nothing has changed"


def test_what_others_say_while_tags_are_fitted_counts_the_next_time(pictures, monkeypatch):
    say(pictures.library, "Rex", yes=[content(n) for n in (0, 10, 20)])
    plain = scoring._store

    def meanwhile(*values):
        with Library.open(pictures.library.folder) as other:
            say(other, "Rex", no=[content(30)])
        plain(*values)

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_store", meanwhile)
        refresh(pictures.library)
    fitted = pictures.library.rows("SELECT fitted_to FROM tag_probes")
    refresh(pictures.library)
    assert pictures.library.rows("SELECT fitted_to FROM tag_probes") != fitted


def test_another_model_is_taught_what_was_said(pictures):
    pictures.teach([10, 20, 30, 40, 50])
    library = pictures.library
    other = library.set_model("other", "b" * 64, DIM, "test")
    rows = library.rows("SELECT image_id, vector FROM embeddings")
    with library.transaction() as conn:
        for image_id, vector in rows:
            turned = np.roll(np.frombuffer(vector, "<f2"), 1).tobytes()
            sql = "INSERT INTO embeddings (image_id, model_id, vector) VALUES (?, ?, ?)"
            conn.execute(sql, (image_id, other.id, turned))
    refresh(library)
    assert library.rows("SELECT identity FROM tag_probes") == [("b" * 64,)]
    assert len(pictures.found("tag:rex") & REX) >= 14


def test_an_example_that_comes_later_counts(pictures):
    say(pictures.library, "Rex", yes=map(content, (10, 20, 310)))
    refresh(pictures.library)
    assert pictures.found("tag:rex") == {10, 20}
    pictures.add(10)
    refresh(pictures.library)
    assert {10, 20, 310} < pictures.found("tag:rex")


def test_suggestions_are_of_pictures_that_nobody_spoke_about(pictures):
    pictures.teach([10, 20, 30, 40, 50], [1, 2])
    mark(pictures.library, [content(60)], "hidden", True)
    made = suggestions(pictures.library, "rex", 8)
    assert 0 < len(made.likely) <= 8 and len(made.uncertain) == 8
    assert not set(made.likely) & set(made.uncertain)
    assert not {1, 2, 10, 20, 30, 40, 50, 60} & {*made.likely, *made.uncertain}
    assert sum(pictures.is_rex(n) for n in made.likely) >= 0.7 * len(made.likely)


def test_tags_are_renamed_and_forgotten(pictures):
    pictures.teach([10, 20, 30])
    say(pictures.library, "other", yes=[content(1)])
    assert rename_tag(pictures.library, "REX", " Rex  the dog").name == "Rex the dog"
    with pytest.raises(TagRefused, match="there is a tag"):
        rename_tag(pictures.library, "other", "rex THE dog")
    assert pictures.found('tag:"rex the dog"') >= {10, 20, 30}
    forget_tag(pictures.library, "rex the dog")
    assert [tag.name for tag in tags(pictures.library)] == ["other"]
    for table in ("tagged", "tag_probes", "tag_examples"):
        sql = f"SELECT count(*) FROM {table} WHERE tag_id NOT IN (SELECT id FROM tags)"
        assert pictures.library.rows(sql) == [(0,)]


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "a\nb\x1b", "\u202e"])
def test_names_that_no_tag_can_have(library, name):
    if name == "a\nb\x1b":
        name = "a\x1b"
    with pytest.raises(TagRefused):
        say(library, name, yes=[content(1)])


def test_a_no_alone_makes_no_tag(library):
    with pytest.raises(TagRefused, match="there is no tag"):
        say(library, "rex", no=[content(1)])
    assert tags(library) == []


def test_what_was_said_is_taken_back(library):
    one, two = content(1), content(2)
    assert say(library, "rex", yes=[one, two]) == {one: None, two: None}
    assert say(library, "rex", yes=[one], neither=[two]) == {two: Said(True, False)}
    assert examples_of(library, "Rex") == {one: True}
    assert say(library, "rex", no=[one], answers=True) == {one: Said(True, False)}
    assert examples_of(library, "Rex") == {one: False}
    assert say(library, "rex", yes=[one, two]) == {one: Said(False, True), two: None}


def test_unknown_tags_are_told_with_those_that_are_near(pictures):
    def asked(text):
        return rank(pictures.library, None, None, parse(text))

    with pytest.raises(Unanswerable, match="no tags in this library yet"):
        asked("tag:rex")
    pictures.teach([10, 20, 30])
    with pytest.raises(Unanswerable, match="Did you mean Rex"):
        asked("tag:rexx")
    with pytest.raises(Unanswerable, match="There are: Rex"):
        asked("tag:zebra")
    assert asked("-tag:zebra").total == 300


def test_a_library_that_cannot_be_written_answers_as_before(pictures, monkeypatch):
    pictures.teach([10, 20, 30, 40, 50])
    found = pictures.found("tag:rex")
    pictures.add(50)
    monkeypatch.setattr(Library, "is_writable", False)
    ranking = rank(pictures.library, None, None, parse("tag:rex"), limit=1000)
    assert set(ranking.ids.tolist()) == found


def test_a_library_is_full_of_tags_at_some_point(library, monkeypatch):
    monkeypatch.setattr(stored, "MOST", 3)
    for number in range(3):
        say(library, f"tag {number}", yes=[content(1)])
    with pytest.raises(TagRefused, match="at most"):
        say(library, "one more", yes=[content(1)])
    assert MOST > 3 and len(tags(library)) == 3


def test_what_was_said_of_all_tags_is_read_at_once(library):
    for name, yes, no in (("rex", (3, 1), ()), ("Bob", (1,), (2, 4)), ("none", (5,), ())):
        say(library, name, yes=map(content, yes), no=map(content, no))
    say(library, "none", neither=[content(5)])
    asked = []
    library.conn.set_trace_callback(asked.append)
    found = list(lessons(library))
    library.conn.set_trace_callback(None)
    assert found == [
        Lesson("Bob", [content(1)], [content(2), content(4)]),
        Lesson("rex", [content(3), content(1)]),
    ]
    assert len(asked) == 1


def test_keepsakes_have_tags(pictures, tmp_path):
    pictures.teach([10, 20, 30], [1])
    document = exported(pictures.library)
    with Library.open(tmp_path / "other", create=True) as other:
        report = imported(other, document)
        assert (report.tags, report.absent) == (4, 4)
        assert examples_of(other, "rex") == examples_of(pictures.library, "rex")
        assert imported(other, document).tags == 0
        for wrong in ({"yes": []}, {"name": "x", "yes": 1}, {"name": "x", "no": ["zz"]}):
            with pytest.raises(LibraryError):
                imported(other, {"fovea": 1, "tags": [wrong]})


def test_an_import_that_would_be_too_much_adds_nothing(pictures, tmp_path, monkeypatch):
    document = {
        "fovea": 1,
        "favourites": [{"sha256": "07" * 32}],
        "hidden": [{"sha256": "08" * 32}],
        "searches": [{"name": "Sea", "query": "sea"}],
        "tags": [{"name": name, "yes": ["07" * 32]} for name in ("one", "two", "three")],
    }
    monkeypatch.setattr(stored, "MOST", 2)
    with Library.open(tmp_path / "other", create=True) as other:
        nothing = exported(other)
        with pytest.raises(TagRefused, match="at most"):
            imported(other, document)
        assert exported(other) == nothing
        monkeypatch.setattr(stored, "MOST", 3)
        monkeypatch.setattr(saved, "MOST", 0)
        with pytest.raises(SearchRefused, match="the most"):
            imported(other, document)
        assert exported(other) == nothing
        monkeypatch.undo()
        report = imported(other, document)
        assert (report.favourites, report.hidden, report.searches, report.tags) == (1, 1, 1, 3)


def test_a_proven_tag_is_proven_after_export_and_import(pictures):
    pictures.teach([10, 20, 30], [1])
    asked = [content(number) for number in (40, 50, 60, 70, 80, 90, 100)]
    others = [content(number) for number in (2, 3, 4)]
    say(pictures.library, "rex", yes=asked, no=others, answers=True)
    refresh(pictures.library)
    before = tag_named(pictures.library, "rex")
    assert before.answers == 10 and before.right is not None
    document = json.loads(json.dumps(exported(pictures.library)))
    [kept] = document["tags"]
    assert set(kept["answers"]) == {key.hex() for key in (*asked, *others)}
    forget_tag(pictures.library, "rex")
    imported(pictures.library, document)
    refresh(pictures.library)
    after = tag_named(pictures.library, "rex")
    assert (after.yes, after.no, after.answers, after.right) == (10, 4, 10, before.right)
    del kept["answers"]  # as in documents of before
    forget_tag(pictures.library, "rex")
    assert imported(pictures.library, document).tags == 14
    assert tag_named(pictures.library, "rex").answers == 0


def test_deleted_pictures_lose_their_tags(pictures):
    pictures.teach([10, 20, 30])
    with pictures.library.transaction() as conn:
        conn.execute("DELETE FROM files WHERE image_id = 10")
        conn.execute("DELETE FROM embeddings WHERE image_id = 10")
        conn.execute("DELETE FROM images WHERE id = 10")
    assert 10 not in pictures.found("tag:rex")
    assert pictures.library.rows("SELECT count(*) FROM tagged WHERE image_id = 10") == [(0,)]
    refresh(pictures.library)
    assert examples_of(pictures.library, "rex")[content(10)] is True
