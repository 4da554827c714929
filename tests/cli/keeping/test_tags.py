"""``fovea teach`` and ``fovea tag``, and the same in Python."""

import numpy as np
import pytest
from PIL import Image

import fovea
from commands import index_once, run, settle
from fovea.search.tags import stored
from fovea.search.tags.counts import tag_counts
from small_clips import write_model

KINDS = {"red": (200, 30, 30), "blue": (30, 30, 200), "grey": (120, 120, 120)}


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """A folder with a model, pictures of three colours, twelve of each, and a library of them."""
    folder = tmp_path_factory.mktemp("home")
    write_model(folder / "model")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name, colour in KINDS.items():
        for number in range(12):
            pixels = np.clip(rng.normal(colour, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / f"{name}{number}.png")
    index_once(folder)
    return folder


@pytest.fixture
def home(indexed, monkeypatch):
    settle(monkeypatch, indexed)
    yield indexed
    with fovea.Library.open() as library:
        for tag in library.tags():
            library.forget_tag(tag.name)


def found(query):
    return {
        hit["path"].rpartition("/")[2]
        for hit in run("search", query, "-k", 99, "--json").json["hits"]
    }


def files(home, kind, numbers):
    return [home / "photos" / f"{kind}{number}.png" for number in numbers]


def test_options_take_all_files_that_follow(home):
    yes, no = files(home, "red", range(4)), files(home, "blue", range(2))
    done = run("teach", "Rex", "--yes", *yes, "--no", *no)
    assert done.code == 0 and done.out.startswith("Rex\t") and "(4 yes, 2 no)" in done.out
    assert {path.name for path in yes} <= found("tag:rex")
    assert not {path.name for path in no} & found("tag:rex")
    assert found("-tag:rex") >= {path.name for path in no}
    assert run("teach", "--yes", yes[0], "--neither", no[0], no[1], "--", "Rex").code == 0
    assert run("tag", "--json").json == run("tag", "list", "--json").json
    [tag] = run("tag", "list", "--json").json
    assert (tag["name"], tag["yes"], tag["no"], tag["taught"]) == ("Rex", 4, 0, True)
    assert run("tag").out == run("tag", "list").out


def test_too_few_examples_are_said_to_be(home):
    done = run("teach", "rex", "--yes", *files(home, "red", range(2)))
    assert done.out == "rex\t2 pictures (2 yes, 0 no)\n"
    assert "too few examples to find others" in done.err
    suggested = run("tag", "suggest", "rex")
    assert suggested.out == "" and "too few examples" in suggested.err


def test_suggestions_name_files_that_nobody_spoke_about(home):
    yes = files(home, "red", range(5))
    run("teach", "rex", "--yes", *yes)
    listed = run("tag", "suggest", "rex", "-k", 4, "--json").json
    assert {one["kind"] for one in listed} <= {"likely", "uncertain"} and len(listed) >= 4
    assert not {str(path) for path in yes} & {one["path"] for one in listed}
    lines = run("tag", "suggest", "rex", "-k", 4).out.splitlines()
    assert [line.split("\t") for line in lines] == [[one["kind"], one["path"]] for one in listed]


def test_ten_answers_tell_how_many_are_right(home):
    run("teach", "rex", "--yes", *files(home, "red", range(4)))
    assert run("tag").out.endswith("unproven (4 yes, 0 no)\n")
    reds, blues = files(home, "red", range(4, 9)), files(home, "blue", range(5))
    done = run("teach", "rex", "--suggested", "--yes", *reds, "--no", *blues)
    assert "unproven" not in done.out and "(9 yes, 5 no)" in done.out
    [tag] = run("tag", "list", "--json").json
    assert tag["answers"] == 10 and 0.7 <= tag["right"] <= 1


def test_status_and_verify_account_for_tags(home):
    assert "tags" not in run("status").out
    run("teach", "rex", "--yes", *files(home, "red", range(4)), "--no", *files(home, "blue", [1]))
    found = run("status", "--json").json["tags"]
    [tag] = run("tag", "list", "--json").json
    assert found == {
        "tags": 1, "taught": 1, "pictures": tag["pictures"], "said": 5, "waiting": 0
    }  # fmt: skip
    assert "tags\t1, of which 1 taught by examples" in run("status").out
    with fovea.Library.open() as library:
        library._store.conn.execute("UPDATE tag_probes SET scored_to = 30")
        assert tag_counts(library._store).waiting == 6
    assert "6 wait to be compared" in run("status").out
    assert run("tag").code == 0 and "to be compared" not in run("status").out
    assert run("verify").code == 0


def test_filters_choose_examples(home):
    run("teach", "reds", "--query", "name:red*")
    assert found("tag:reds") >= {f"red{n}.png" for n in range(9)}
    assert "takes filters only" in run("teach", "reds", "--query", "dog").err


def test_tags_are_renamed_and_forgotten(home):
    run("teach", "rex", "--yes", *files(home, "red", range(3)))
    assert run("tag", "rename", "rex", "Rex the dog").out.startswith("Rex the dog\t")
    assert found('tag:"rex the dog"')
    assert run("tag", "forget", "REX THE DOG").out == "forgot REX THE DOG\n"
    done = run("search", "tag:rex")
    assert done.code != 0 and "no tags in this library yet" in done.err


def test_sidecars_are_exchanged_and_accounted_for(home, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run("teach", "rex", "--yes", *files(home, "red", range(2)))
    done = run("tag", "export", out)
    assert (done.code, done.out) == (0, "2 sidecars written\n") and "removed" not in done.err
    run("teach", "rex", "--neither", *files(home, "red", [0]))
    done = run("tag", "export", out)
    assert done.out == "1 sidecar written\n" and "1 sidecar removed" in done.err
    [kept] = out.rglob("*.xmp")
    kept.with_name("blue1.png.xmp").write_bytes(b"<broken")
    kept.with_name("blue2.png.xmp").write_bytes(
        kept.read_bytes().replace(b"rex</rdf:li>", b"rex</rdf:li><rdf:li>max</rdf:li>")
    )
    monkeypatch.setattr(stored, "MOST", 1)
    done = run("tag", "import", out)
    assert done.out == "2 sidecars read, which said something new of 1 picture\n"
    assert "1 keyword ignored: a library has at most 1 tag" in done.err
    assert "1 sidecar could not be read" in done.err
    assert run("tag", "import", out).out.endswith("something new of 0 pictures\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("teach", "rex"), "nothing to teach"),
        (("teach", "rex", "--yes"), "requires an argument"),
        (("teach", "rex", "--no", "red0.png"), "there is no tag"),
        (("teach", " ", "--yes", "red0.png"), "needs a name"),
        (("teach", "rex", "--yes", "gone.png"), "gone.png"),
        (("tag", "suggest", "nobody"), "there is no tag 'nobody'"),
        (("tag", "forget", "nobody"), "there is no tag 'nobody'"),
        (("tag", "rename", "nobody", "x"), "there is no tag 'nobody'"),
    ],
)
def test_mistakes_are_one_line(home, words, says):
    words = [home / "photos" / word if word == "red0.png" else word for word in words]
    done = run(*words)
    assert done.code != 0 and says in done.err and "Traceback" not in done.err


def test_python_teaches_too(home):
    with fovea.Library.open() as library:
        ids = {hit.path.rpartition("/")[2]: hit.image_id for hit in library.search("", k=99).hits}
        tag = library.teach("rex", [ids["red0.png"], *files(home, "red", [1, 2, 3])])
        assert isinstance(tag, fovea.Tag) and (tag.yes, tag.is_taught) == (4, True)
        assert library.tag("REX") == tag and library.tags() == [tag]
        assert len(library.search("tag:rex", k=99).hits) == tag.pictures
        assert isinstance(library.tag_suggestions("rex", 3), fovea.Suggestions)
        with pytest.raises(fovea.TagRefused):
            library.tag("nobody")
        library.rename_tag("rex", "Max")
        library.forget_tag("max")
        assert library.tags() == []
