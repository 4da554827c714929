"""Tags, and the pictures that people say have them or have not.

Examples belong to contents, as favourites do, whether the library has a picture of them now or not.
Functions take a library; those that change it raise ``LibraryReadOnly`` where it cannot be changed.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fovea.search.errors import LibraryError
from fovea.search.library.facts.tags import tag_words
from fovea.search.library.library import Library

__all__ = [
    "LONGEST_NAME",
    "MOST",
    "Lesson",
    "Said",
    "Tag",
    "TagRefused",
    "Tagged",
    "checked_name",
    "examples_of",
    "forget_tag",
    "lessons",
    "make_tag",
    "rename_tag",
    "restore",
    "say",
    "tag_named",
    "tags",
    "tags_of",
]

LONGEST_NAME = 60  # characters
MOST = 2_000  # tags in a library

_TAG = (
    "SELECT id, name, prompts IS NOT NULL, "
    "(SELECT count(*) FROM tag_examples WHERE tag_id = tags.id AND is_so), "
    "(SELECT count(*) FROM tag_examples WHERE tag_id = tags.id AND NOT is_so), "
    "(SELECT count(*) FROM tag_examples WHERE tag_id = tags.id AND is_answer), "
    "(SELECT count(*) FROM tagged JOIN shown USING (image_id) WHERE tag_id = tags.id "
    "AND image_id NOT IN (SELECT image_id FROM hidden)), right, coefficients IS NOT NULL "
    "FROM tags LEFT JOIN tag_probes ON tag_id = tags.id"
)


class TagRefused(LibraryError):
    """A tag that cannot have that name, or that is not there; ``code`` and ``params`` say why."""

    def __init__(self, message: str, code: str, **params: str | int) -> None:
        super().__init__(message)
        self.code, self.params = code, params


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag as the library has it now."""

    id: int
    name: str
    by_label: bool  # found by what it is called, until there are enough examples
    yes: int  # examples that have it
    no: int  # examples that have not
    pictures: int  # with this tag, without hidden ones
    right: float | None  # estimated share of the pictures found that have it; None: unproven
    answers: int  # examples that were suggested; ``right`` is unproven without enough of them
    is_taught: bool  # by enough examples: it finds pictures that nobody has looked at

    def fields(self) -> dict[str, object]:
        """Return what JSON says of it, on the command line and over HTTP."""
        return {
            "id": self.id,
            "name": self.name,
            "pictures": self.pictures,
            "yes": self.yes,
            "no": self.no,
            "right": self.right,
            "answers": self.answers,
            "taught": self.is_taught,
            "by_label": self.by_label,
        }


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tag of a picture."""

    name: str
    probability: float  # 0 to 1; 1 where somebody said so
    said: bool | None  # what somebody said: the picture has it, or has not; None: nobody did
    is_proven: bool = True  # the probability is known to mean something


@dataclass(frozen=True, slots=True)
class Lesson:
    """What people said of contents about one tag, the oldest first."""

    name: str
    yes: list[bytes] = field(default_factory=list)  # contents that have it
    no: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)  # of these, those that were suggested


@dataclass(frozen=True, slots=True)
class Said:
    """What somebody said of a content."""

    is_so: bool  # it has the tag, or has not
    is_answer: bool  # it was suggested


def tags(library: Library) -> list[Tag]:
    """Return all tags, by name."""
    return [_tag(*row) for row in library.rows(f"{_TAG} ORDER BY folded")]


def tag_named(library: Library, name: str) -> Tag:
    """Return a tag by its name, in any case. Raise ``TagRefused`` if there is none."""
    found = library.rows(f"{_TAG} WHERE folded = ?", [tag_words(name)])
    if not found:
        shown = " ".join(name.split())[:LONGEST_NAME]
        raise TagRefused(
            f"there is no tag {shown!r}; fovea teach {shown or 'NAME'} --yes FILE makes one",
            "tag.unknown",
            name=shown,
        )
    return _tag(*found[0])


def _tag(*row: object) -> Tag:
    number, name, by_label, yes, no, answers, pictures, right, is_taught = row
    return Tag(number, name, bool(by_label), yes, no, pictures, right, answers, bool(is_taught))  # type: ignore[arg-type]


def checked_name(name: str) -> str:
    """Return a tag's name with single spaces. Raise ``TagRefused`` for one that none can have."""
    made = " ".join(name.split())
    if not tag_words(made) or not made.isprintable():
        raise TagRefused("a tag needs a name of letters or digits", "tag.empty")
    if len(made) > LONGEST_NAME:
        raise TagRefused(
            f"this name has {len(made)} characters; a tag's has at most {LONGEST_NAME}",
            "tag.long",
            most=LONGEST_NAME,
        )
    return made


def make_tag(
    conn: sqlite3.Connection, name: str, prompts: Sequence[str] | None = None
) -> tuple[int, bool]:
    """Return the id of the tag of that name, within a transaction, and whether it is new.

    ``prompts`` are what a new tag, or one without any, is called to the model.
    """
    made = checked_name(name)
    found = conn.execute("SELECT id FROM tags WHERE folded = ?", (tag_words(made),)).fetchall()
    written = None if prompts is None else json.dumps(list(prompts), ensure_ascii=False)
    if found:
        [(number,)] = found
        if written is not None:
            sql = "UPDATE tags SET prompts = ? WHERE id = ? AND prompts IS NOT ?"
            conn.execute(sql, (written, number, written))
        return int(number), False
    [(count,)] = conn.execute("SELECT count(*) FROM tags")
    if count >= MOST:
        raise TagRefused(f"a library has at most {MOST:,} tags; forget some", "tag.full", most=MOST)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made_row = conn.execute(
        "INSERT INTO tags (name, folded, prompts, made_at) VALUES (?, ?, ?, ?)",
        (made, tag_words(made), written, now),
    )
    assert made_row.lastrowid is not None
    return made_row.lastrowid, True


def say(
    library: Library,
    name: str,
    *,
    yes: Iterable[bytes] = (),
    no: Iterable[bytes] = (),
    neither: Iterable[bytes] = (),
    answers: bool = False,
) -> dict[bytes, Said | None]:
    """Say which contents have a tag, which have not, and of which nothing is said any more.

    ``answers`` says that they were suggested: only such pictures tell how many of those that are
    found are right. The tag is made if it is not there and somebody says yes. Return the contents
    for which that was a change, with what was said of them before. Raise ``TagRefused`` for a name
    that no tag can have, and where nobody has said what has the tag.
    """
    said = {**dict.fromkeys(neither), **dict.fromkeys(no, False), **dict.fromkeys(yes, True)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    changed: dict[bytes, Said | None] = {}
    with library.transaction() as conn:
        wanted = tag_words(checked_name(name))
        found = conn.execute("SELECT id FROM tags WHERE folded = ?", (wanted,)).fetchall()
        if not found and True not in said.values():
            tag_named(library, name)  # raises
        tag_id, _ = make_tag(conn, name)
        for content, is_so in said.items():
            key = (tag_id, content)
            sql = "SELECT is_so, is_answer FROM tag_examples WHERE tag_id = ? AND hash = ?"
            before = next((Said(*map(bool, row)) for row in conn.execute(sql, key)), None)
            if is_so == (None if before is None else before.is_so):
                continue
            conn.execute("DELETE FROM tag_examples WHERE tag_id = ? AND hash = ?", key)
            if is_so is not None:
                conn.execute(
                    "INSERT INTO tag_examples (tag_id, hash, is_so, is_answer, marked_at) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (*key, is_so, answers, now),
                )
            changed[content] = before
    return changed


def examples_of(library: Library, name: str) -> dict[bytes, bool]:
    """Return what was said of which contents, the oldest first."""
    tag = tag_named(library, name)
    sql = "SELECT hash, is_so FROM tag_examples WHERE tag_id = ? ORDER BY id"
    return {content: bool(is_so) for content, is_so in library.rows(sql, [tag.id])}


def lessons(library: Library) -> list[Lesson]:
    """Return what people taught, by the name of the tag."""
    found: dict[str, Lesson] = {}
    for name, content, is_so, is_answer in library.rows(
        "SELECT name, hash, is_so, is_answer FROM tag_examples JOIN tags ON tags.id = tag_id "
        "ORDER BY folded, tag_examples.id"
    ):
        lesson = found.setdefault(name, Lesson(name))
        (lesson.yes if is_so else lesson.no).append(content)
        if is_answer:
            lesson.answers.append(content)
    return list(found.values())


def restore(conn: sqlite3.Connection, lesson: Lesson) -> list[bytes]:
    """Add what was taught elsewhere, within a transaction; what is said here stays.

    Return the contents of which something was added. Raise ``TagRefused``, before anything is
    added, for a tag that cannot be made.
    """
    tag_id, _ = make_tag(conn, lesson.name)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    there = {
        content
        for (content,) in conn.execute("SELECT hash FROM tag_examples WHERE tag_id = ?", [tag_id])
    }
    said = {**dict.fromkeys(lesson.no, False), **dict.fromkeys(lesson.yes, True)}
    added = [content for content in said if content not in there]
    answers = set(lesson.answers)
    conn.executemany(
        "INSERT INTO tag_examples (tag_id, hash, is_so, is_answer, marked_at) "
        "VALUES (?, ?, ?, ?, ?)",
        ((tag_id, content, said[content], content in answers, now) for content in added),
    )
    return added


def rename_tag(library: Library, name: str, new_name: str) -> Tag:
    """Give a tag another name. Raise ``TagRefused`` if it is taken, or no tag can have it."""
    made = checked_name(new_name)
    with library.transaction() as conn:
        tag = tag_named(library, name)
        taken = conn.execute(
            "SELECT 1 FROM tags WHERE folded = ? AND id <> ?", (tag_words(made), tag.id)
        ).fetchall()
        if taken:
            raise TagRefused(f"there is a tag {made!r} already", "tag.taken", name=made)
        sql = "UPDATE tags SET name = ?, folded = ? WHERE id = ?"
        conn.execute(sql, (made, tag_words(made), tag.id))
    return tag_named(library, made)


def forget_tag(library: Library, name: str) -> None:
    """Forget a tag, and all that was said about it. Raise ``TagRefused`` if there is none."""
    with library.transaction() as conn:
        tag = tag_named(library, name)
        for table in ("tagged", "tag_probes", "tag_examples"):
            conn.execute(f"DELETE FROM {table} WHERE tag_id = ?", (tag.id,))
        conn.execute("DELETE FROM tags WHERE id = ?", (tag.id,))


def tags_of(library: Library, image_ids: Iterable[int]) -> dict[int, list[Tagged]]:
    """Return the tags of images, by image id: those said to be so first, then the likeliest.

    Also those that somebody said an image has not, last, with the probability 0.
    """
    ids = json.dumps([int(image_id) for image_id in image_ids])
    rows = library.rows(
        "SELECT image_id, name, probability, (SELECT right IS NOT NULL FROM tag_probes "
        "WHERE tag_probes.tag_id = tagged.tag_id), (SELECT is_so FROM tag_examples JOIN images "
        "USING (hash) WHERE images.id = tagged.image_id AND tag_examples.tag_id = tagged.tag_id) "
        "FROM json_each(?) CROSS JOIN tagged INDEXED BY tagged_image_id ON image_id = value "
        "JOIN tags ON tags.id = tag_id "
        "UNION SELECT images.id, name, 0, 1, 0 FROM json_each(?) CROSS JOIN images "
        "ON images.id = value JOIN tag_examples USING (hash) JOIN tags ON tags.id = tag_id "
        "WHERE NOT is_so",
        [ids, ids],
    )
    found: dict[int, list[Tagged]] = {}
    for image_id, name, probability, is_proven, said in rows:
        known = None if said is None else bool(said)
        tag = Tagged(name, float(probability), known, known is not None or bool(is_proven))
        found.setdefault(image_id, []).append(tag)
    for listed in found.values():
        listed.sort(key=lambda tag: (-(tag.said or 0), -tag.probability, tag.name))
    return found
