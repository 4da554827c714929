"""Give pictures tags by what they are called: the label that a picture shows most probably.

The labels are those that ship with fovea, or those and a user's own. A picture gets its likeliest
label (Radford et al. 2021, section 3.1.2) where that is as probable as the model's labels were
measured to have to be; only models whose labels were measured to be right often enough have any.
What people say of a picture counts more, and a tag with examples enough is found by these alone.
"""

import io
import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fovea.search.clip.protocols import TextEncoder
from fovea.search.clip.zeroshot import class_embeddings
from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.library.paths import printable_name
from fovea.search.library.rows import ModelRow
from fovea.search.query.likelihood import Background, default_labels, label_shares, surroundings
from fovea.search.query.measured import LabelSigns
from fovea.search.tags.scoring import embedded_pages, refresh
from fovea.search.tags.stored import TagRefused, checked_name, make_tag

__all__ = ["Label", "Wanted", "labels_in", "label_pictures", "labels_wanted", "unlabel_pictures"]

SETTING = "labels"  # a key of the library's settings: JSON, the user's own labels; absent: none
MOST = 1_000  # labels of a user's own
LARGEST = 1 << 20  # bytes of a file of labels


@dataclass(frozen=True, slots=True)
class Label:
    """A tag and what it is called to the model, in one or more ways."""

    name: str
    prompts: tuple[str, ...]


def labels_in(path: Path) -> list[Label]:
    """Read a file of labels: a name on each line, or ``name: prompt | prompt``.

    Empty lines and those that begin with # are passed over; a name that begins with one is written
    with a backslash before it. Raise ``LibraryError`` for a file that cannot be read, has no label
    or too many, or has a name that no tag can have.
    """
    name = printable_name(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        text = data.decode("utf-8-sig")
    except OSError as exc:
        raise LibraryError(f"cannot read {name}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise LibraryError(f"{name} is not UTF-8; write one label a line") from exc
    found = {}
    for number, line in enumerate(map(str.strip, io.StringIO(text, newline=None)), start=1):
        if not line or line.startswith("#"):
            continue
        said, _, written = (line[1:] if line.startswith("\\#") else line).partition(":")
        prompts = tuple(filter(None, map(str.strip, written.split("|"))))
        try:
            made = checked_name(said)
        except TagRefused as exc:
            raise LibraryError(f"{name}, line {number}: {exc}") from exc
        found[made] = Label(made, prompts or (f"a photo of a {made}.",))
    if not found or len(found) > MOST or len(data) > LARGEST:
        raise LibraryError(f"{name} has {len(found):,} labels; write 1 to {MOST:,}, one a line")
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Wanted:
    """The user's own labels, in addition to those that ship, and what was labelled with them."""

    own: tuple[Label, ...]
    identity: str  # of the model
    last: int  # the last embedding that has been looked at
    right: float | None = None  # share that must have been measured to be right; None: the usual


def labels_wanted(library: Library) -> Wanted | None:
    """Return what labels pictures get; None: none."""
    found = library.rows("SELECT value FROM library WHERE key = ?", [SETTING])
    if not found:
        return None
    kept = json.loads(found[0][0])
    own = tuple(Label(name, tuple(prompts)) for name, prompts in kept["own"])
    return Wanted(own, kept["identity"], kept["last"], kept.get("right"))


def unlabel_pictures(library: Library) -> None:
    """Switch labels off: forget the tags that nobody has spoken about, and what labels found."""
    with library.transaction() as conn:
        conn.execute("DELETE FROM library WHERE key = ?", (SETTING,))
        _forget_found(conn)
        conn.execute("UPDATE tags SET prompts = NULL WHERE prompts IS NOT NULL")
    refresh(library)


def label_pictures(
    library: Library,
    model: ModelRow,
    background: Background | None,
    own: Sequence[Label],
    encoder: TextEncoder | None,
    after: int = 0,
    right: float | None = None,
) -> int:
    """Give pictures their labels, now and when others are indexed; return how many got one.

    ``encoder`` embeds the labels that do not ship, and is not needed without. ``after`` is the last
    embedding that has been looked at with these labels; 0 begins anew. ``right`` is the share that
    must have been measured to be right, 0 to 1, where more is wanted than is usual. Raise
    ``LibraryError`` where the model's labels were not measured to be right so often.
    """
    signs = None if background is None or background.signs is None else background.signs.labels
    if background is None or signs is None or not signs.are_shown:
        raise LibraryError(
            f"{model.name} gives no labels: they were not measured to be right often enough; use "
            "the bundled model, or teach tags by examples"
        )
    if right is not None:
        stricter = signs.with_right(right)
        if stricter is None:
            best = max([signs.right, *(share for _, share in signs.stricter)])
            raise LibraryError(
                f"labels of {model.name} were measured to be right "
                f"{math.floor(100 * best + 1e-9)}% of the time at most; {100 * right:g}% is wanted"
            )
        signs = stricter
    names = list(default_labels())
    prompts: list[tuple[str, ...]] = [(f"a photo of a {name}.",) for name in names]
    vectors = background.vectors
    if own:
        assert encoder is not None
        rows = [class_embeddings(encoder, [one.name], one.prompts) for one in own]
        vectors = np.concatenate([vectors, *rows])
        names += [one.name for one in own]
        prompts += [one.prompts for one in own]
    all_labels = Background(background.identity, vectors, background.scale, background.signs)
    centre = surroundings(library, model.id, background).centre
    found: list[tuple[int, int, float]] = []
    last = after
    with library.reading() as conn:
        for ids, image_ids, rows_of in embedded_pages(conn, model, after):
            last = int(ids[-1])
            shares = label_shares(all_labels, centre, rows_of)
            first = shares.argmax(axis=1)
            chances = shares[np.arange(len(first)), first]
            for place in np.flatnonzero(chances >= signs.threshold).tolist():
                found.append((int(image_ids[place]), int(first[place]), float(chances[place])))
    labels = list(zip(names, prompts, strict=True))
    kept: dict[str, object] = {
        "own": [[one.name, one.prompts] for one in own],
        "identity": model.identity,
    }
    if right is not None:
        kept["right"] = right
    with library.transaction() as conn:
        if not after:
            _forget_found(conn)
        _store(conn, signs, labels, found)
        written = json.dumps({**kept, "last": last})
        conn.execute("INSERT OR REPLACE INTO library VALUES (?, ?)", (SETTING, written))
    refresh(library)
    return len(found)


def _store(
    conn: sqlite3.Connection,
    signs: LabelSigns,
    labels: Sequence[tuple[str, tuple[str, ...]]],
    found: Sequence[tuple[int, int, float]],
) -> None:
    """Keep what labels found; ``refresh`` makes it the tags of pictures."""
    tag_of = {}
    for at in sorted({place for _, place, _ in found}):
        tag_of[at], _ = make_tag(conn, *labels[at])
        conn.execute(
            "INSERT INTO tag_labels VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (tag_of[at], signs.threshold, signs.right),
        )
        conn.execute(f"{_MADE_AGAIN} AND tag_id = ?", (tag_of[at],))
    conn.executemany(
        "INSERT OR REPLACE INTO labelled SELECT ?, id, ? FROM images WHERE id = ?",
        ((tag_of[at], chance, image_id) for image_id, at, chance in found),
    )


_MADE_AGAIN = "DELETE FROM tag_probes WHERE coefficients IS NULL"  # by ``refresh``


def _forget_found(conn: sqlite3.Connection) -> None:
    """Forget what labels found, and the tags of which nothing else is known."""
    conn.execute("DELETE FROM labelled")
    conn.execute("DELETE FROM tag_labels")
    conn.execute(
        "DELETE FROM tags WHERE prompts IS NOT NULL AND id NOT IN (SELECT tag_id FROM tag_examples)"
    )
    conn.execute(f"{_MADE_AGAIN} AND tag_id IN (SELECT id FROM tags WHERE prompts IS NOT NULL)")
