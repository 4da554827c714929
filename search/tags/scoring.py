"""Keep the tags of pictures up to date: fit probes to what people said, and score new pictures.

A tag is fitted anew where its examples, their embeddings or the model have changed; otherwise only
embeddings written since are compared with it. Vectors are read page by page. A tag that has a label
and too few examples for a probe gets what its label found. What people said then counts more.
"""

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import numpy as np

from fovea.search.errors import LibraryError
from fovea.search.index.stored_vectors import unit_vectors
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow

from .probe import LEAST, Probe, fit_probe, settled
from .stored import Tag, tag_named

__all__ = [
    "Suggestions",
    "embedded_pages",
    "is_fresh",
    "refresh",
    "refresh_if_possible",
    "suggestions",
]

log = logging.getLogger(__name__)

PAGE = 4096  # embeddings compared at a time
BY_LABEL = -1
NEARLY_UNIT = 1e-3  # of a squared length that needs no closer look
OTHERS = 200  # random pictures that a tag's are told from

_fresh: WeakKeyDictionary[Library, tuple[int, int]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Suggestions:
    """Pictures that nobody has spoken about yet; image ids, each picture in one list only."""

    likely: tuple[int, ...]  # that most probably have the tag, the likeliest first
    uncertain: tuple[int, ...]  # nearest to the threshold, from either side; none of the likely


@dataclass(frozen=True, slots=True)
class _Example:
    image_id: int
    embedding_id: int | None  # None: not embedded by this model
    is_so: bool
    is_answer: bool  # the picture was suggested


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done for one tag."""

    tag_id: int
    fitted_to: str
    probe: Probe | None
    after: int  # the last embedding that need not be compared; BY_LABEL: none need
    named: dict[int, bool] = field(default_factory=dict)  # images that people spoke about


def refresh_if_possible(library: Library) -> None:
    """Be ``refresh`` where the library can be changed; elsewhere tags stay as they are."""
    if not library.is_writable:
        return
    try:
        refresh(library)
    except LibraryError as exc:
        log.warning("tags are not brought up to date: %s", exc)


def is_fresh(library: Library) -> bool:
    """Whether nobody has written since the tags were brought up to date: that is quickly known."""
    return _fresh.get(library) == _state(library)


def refresh(library: Library) -> None:
    """Bring all tags up to date with what was said, with the model and with new pictures.

    Where nothing has changed, that takes no time. Raise ``LibraryReadOnly`` if the library cannot
    be changed here.
    """
    if is_fresh(library):
        return
    state = _state(library)
    with library.reading() as conn:
        model = library.model()
        plans = [] if model is None else _plans(library, model)
        found: list[tuple[int, int, float]] = []
        last = 0
        if model is not None and plans:
            [(newest,)] = conn.execute(_NEWEST, (model.id,))
            last = int(newest or 0)
            plans, found = _compared(conn, model, plans)
    if model is not None and plans:
        _store(library, model, plans, found, last)
        before, state = state, _state(library)
        if state[0] != before[0]:  # another process wrote meanwhile: look again the next time
            return
    _fresh[library] = state


_NEWEST = "SELECT max(id) FROM embeddings INDEXED BY embeddings_model_id WHERE model_id = ?"


def _state(library: Library) -> tuple[int, int]:
    [(version,)] = library.rows("PRAGMA data_version")  # changes with the commits of others
    return version, library.conn.total_changes


def _plans(library: Library, model: ModelRow) -> list[_Plan]:
    """Return what is to be done; empty where all tags are up to date."""
    stored = library.rows(
        "SELECT tags.id, prompts, identity, fitted_to, scored_to, coefficients, threshold, right "
        "FROM tags LEFT JOIN tag_probes ON tag_id = tags.id ORDER BY tags.id"
    )
    if not stored:
        return []
    said = _said(library, model)
    [(newest,)] = library.rows(_NEWEST, [model.id])
    plans, others = [], None
    for tag_id, prompts, identity, fitted_to, scored_to, blob, threshold, right in stored:
        examples = said.get(tag_id, [])
        wanted = _digest(model, examples)
        if prompts is not None and not _are_enough(examples):  # found by its label
            if (identity, fitted_to) != (model.identity, wanted):
                plans.append(_Plan(tag_id, wanted, None, BY_LABEL))
            continue
        if (identity, fitted_to) != (model.identity, wanted):
            if others is None:
                others = _others(library, model)
            probe = _fitted(library, model, examples, others)
            named = {one.image_id: one.is_so for one in examples}
            plans.append(_Plan(tag_id, wanted, probe, 0, named))
        elif scored_to < (newest or 0):
            probe = None
            if blob is not None:
                row = np.frombuffer(blob, "<f4")
                probe = Probe(row[:-1], float(row[-1]), threshold, right)
            plans.append(_Plan(tag_id, wanted, probe, scored_to))
    return plans


def _are_enough(examples: Sequence[_Example]) -> bool:
    return sum(one.is_so and one.embedding_id is not None for one in examples) >= LEAST


def _said(library: Library, model: ModelRow) -> dict[int, list[_Example]]:
    """Return the examples that the library has pictures of, by tag, in the order of the images."""
    rows = library.rows(
        "SELECT tag_id, images.id, embeddings.id, is_so, is_answer FROM tag_examples "
        "JOIN images USING (hash) LEFT JOIN embeddings ON image_id = images.id AND model_id = ? "
        "ORDER BY tag_id, images.id",
        [model.id],
    )
    found: dict[int, list[_Example]] = {}
    for tag_id, image_id, embedding_id, is_so, is_answer in rows:
        example = _Example(image_id, embedding_id, bool(is_so), bool(is_answer))
        found.setdefault(tag_id, []).append(example)
    return found


def _digest(model: ModelRow, examples: Sequence[_Example]) -> str:
    parts = [[one.image_id, one.embedding_id, one.is_so, one.is_answer] for one in examples]
    return hashlib.sha256(json.dumps([model.identity, parts]).encode()).hexdigest()


def _fitted(
    library: Library,
    model: ModelRow,
    examples: Sequence[_Example],
    others: tuple[np.ndarray, np.ndarray],
) -> Probe | None:
    ids, vectors = others
    known = sorted((one.embedding_id, one) for one in examples if one.embedding_id is not None)
    rows = _vectors(library, model, [number for number, _ in known])  # in the order of their ids
    is_so = np.array([one.is_so for _, one in known], bool)
    is_answer = np.array([one.is_answer for _, one in known], bool)
    answers = np.concatenate([is_answer[is_so], is_answer[~is_so]])
    unnamed = ~np.isin(ids, [number for number, _ in known])
    return fit_probe(rows[is_so], rows[~is_so], vectors[unnamed], answers.tolist())


def _others(library: Library, model: ModelRow) -> tuple[np.ndarray, np.ndarray]:
    """Return random pictures, the same ones until others come: embeddings' ids, and vectors."""
    sql = "SELECT id FROM embeddings INDEXED BY embeddings_model_id WHERE model_id = ?"
    rows = library.rows(sql, [model.id])
    ids = np.fromiter((number for (number,) in rows), np.int64, len(rows))
    if len(ids) > OTHERS:
        ids = np.sort(np.random.default_rng(0).choice(ids, OTHERS, replace=False))
    return ids, _vectors(library, model, ids.tolist())


def _vectors(library: Library, model: ModelRow, ids: Sequence[int]) -> np.ndarray:
    """Return the vectors of embeddings, float32 (n, d)."""
    rows = library.rows(
        "SELECT id, vector FROM embeddings WHERE id IN (SELECT value FROM json_each(?)) "
        "ORDER BY id",
        [json.dumps(list(ids))],
    )
    if not rows:
        return np.empty((0, model.dim), np.float32)
    return unit_vectors(rows, model.dim).astype(np.float32)


def embedded_pages(
    conn: sqlite3.Connection, model: ModelRow, after: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield embeddings: their ids and their images', int64 (n,), and vectors, float32 (n, d)."""
    cursor = conn.execute(
        "SELECT id, image_id, vector FROM embeddings INDEXED BY embeddings_model_id "
        "WHERE model_id = ? AND id > ? ORDER BY id",
        (model.id, after),
    )
    while page := cursor.fetchmany(PAGE):
        ids, image_ids, stored = zip(*page, strict=True)
        yield np.array(ids), np.array(image_ids), _unit(ids, stored, model.dim)


def _unit(ids: Sequence[int], stored: Sequence[bytes], dim: int) -> np.ndarray:
    """Return unit vectors, float32 (n, d), checked in one pass. Raise ``LibraryDamaged``."""
    try:
        vectors = np.frombuffer(b"".join(stored), "<f2").reshape(len(stored), dim)
        vectors = vectors.astype(np.float32)
        lengths = np.einsum("nd,nd->n", vectors, vectors)
        if (np.abs(lengths - 1) < NEARLY_UNIT).all():
            return vectors
    except (TypeError, ValueError):
        pass  # text, or vectors of another width
    return unit_vectors(list(zip(ids, stored, strict=True)), dim).astype(np.float32)  # says which


def _compared(
    conn: sqlite3.Connection, model: ModelRow, plans: Sequence[_Plan]
) -> tuple[list[_Plan], list[tuple[int, int, float]]]:
    """Return the plans with what was learnt, and the pictures found: tag, image, probability."""
    probes = [(plan, plan.probe) for plan in plans if plan.probe is not None]
    if not probes:
        return list(plans), []
    weights = np.stack([probe.weights for _, probe in probes], axis=1)  # (d, t)
    biases = np.array([probe.bias for _, probe in probes], np.float32)
    lines = np.array([_margin(probe.threshold) for _, probe in probes], np.float32)
    afters = np.array([plan.after for plan, _ in probes])
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # columns, images, margins
    for ids, image_ids, vectors in embedded_pages(conn, model, int(afters.min())):
        margins = vectors @ weights + biases  # (n, t)
        places, columns = np.nonzero((margins >= lines) & (ids[:, None] > afters))
        parts.append((columns, image_ids[places], margins[places, columns]))
    if not parts:
        return list(plans), []
    columns, images, margins = map(np.concatenate, zip(*parts, strict=True))
    order = np.argsort(columns, kind="stable")
    ends = np.searchsorted(columns[order], np.arange(len(probes) + 1))
    settled_probes: dict[int, Probe] = {}
    found: list[tuple[int, int, float]] = []
    for column, (plan, probe) in enumerate(probes):
        own = order[ends[column] : ends[column + 1]]
        chances = 0.5 * (1 + np.tanh(margins[own].astype(np.float64) / 2))
        if plan.named:  # it was fitted just now
            unspoken = chances[~np.isin(images[own], list(plan.named))]
            probe = settled(probe, unspoken, sum(plan.named.values()))
            settled_probes[plan.tag_id] = probe
        kept = chances >= probe.threshold * (1 - 1e-9)
        pairs = zip(images[own][kept].tolist(), chances[kept].tolist(), strict=True)
        found += [(plan.tag_id, image, chance) for image, chance in pairs]
    learnt = [replace(plan, probe=settled_probes.get(plan.tag_id, plan.probe)) for plan in plans]
    return learnt, found


def _margin(probability: float) -> float:
    """Return the margin of the probability, which float32 tells apart better near 1."""
    return float(np.log(probability) - np.log1p(-probability))


def _store(
    library: Library,
    model: ModelRow,
    plans: Sequence[_Plan],
    found: Sequence[tuple[int, int, float]],
    last: int,
) -> None:
    with library.transaction() as conn:
        known = {number for (number,) in conn.execute("SELECT id FROM tags")}
        plans = [plan for plan in plans if plan.tag_id in known]  # others were forgotten meanwhile
        for plan in plans:
            blob, threshold, right = None, 1.0, None
            if plan.after == BY_LABEL:
                threshold, right = _as_labelled(conn, plan.tag_id)
            elif not plan.after:
                conn.execute("DELETE FROM tagged WHERE tag_id = ?", (plan.tag_id,))
            if plan.probe is not None:
                row = np.append(plan.probe.weights, np.float32(plan.probe.bias))
                blob, threshold, right = (
                    row.astype("<f4").tobytes(),
                    plan.probe.threshold,
                    plan.probe.right,
                )
            conn.execute(
                "INSERT OR REPLACE INTO tag_probes VALUES (?, ?, ?, ?, ?, ?, ?)",
                (plan.tag_id, model.identity, plan.fitted_to, last, blob, threshold, right),
            )
        conn.executemany(
            "INSERT OR REPLACE INTO tagged SELECT ?, id, ? FROM images WHERE id = ?",
            ((tag, chance, image) for tag, image, chance in found if tag in known),
        )
        _correct(conn)


def _as_labelled(conn: sqlite3.Connection, tag_id: int) -> tuple[float, float | None]:
    """Give a tag to the pictures that its label found; return its threshold and share right."""
    conn.execute(
        "DELETE FROM tagged WHERE tag_id = ? AND NOT EXISTS (SELECT 1 FROM labelled "
        "WHERE labelled.tag_id = tagged.tag_id AND labelled.image_id = tagged.image_id)",
        (tag_id,),
    )
    conn.execute(
        "INSERT OR REPLACE INTO tagged SELECT * FROM labelled WHERE tag_id = ? "
        "EXCEPT SELECT * FROM tagged WHERE tag_id = ?",
        (tag_id, tag_id),
    )
    signs = conn.execute("SELECT threshold, right FROM tag_labels WHERE tag_id = ?", (tag_id,))
    return next(signs, (1.0, None))


def _correct(conn: sqlite3.Connection) -> None:
    """Make all tags what people said, whatever was found."""
    said = "FROM tag_examples JOIN images USING (hash)"
    conn.execute(
        f"INSERT OR REPLACE INTO tagged SELECT tag_id, images.id, 1.0 {said} WHERE is_so "
        "AND NOT EXISTS (SELECT 1 FROM tagged WHERE tagged.tag_id = tag_examples.tag_id "
        "AND image_id = images.id AND probability = 1.0)"
    )
    conn.execute(
        "DELETE FROM tagged WHERE (tag_id, image_id) IN "
        f"(SELECT tag_id, images.id {said} WHERE NOT is_so)"
    )


def suggestions(library: Library, name: str, count: int = 12) -> Suggestions:
    """Return pictures to confirm or reject, at most ``count`` of each kind, without hidden ones.

    Raise ``TagRefused`` if there is no such tag. Empty until there are examples enough for a probe.
    """
    refresh_if_possible(library)
    tag: Tag = tag_named(library, name)
    model = library.model()
    rows = library.rows("SELECT coefficients, threshold FROM tag_probes WHERE tag_id = ?", [tag.id])
    if model is None or not rows or rows[0][0] is None or count < 1:
        return Suggestions((), ())
    row, line = np.frombuffer(rows[0][0], "<f4"), _margin(rows[0][1])
    if len(row) != model.dim + 1:
        return Suggestions((), ())  # of another model, in a library that cannot be changed
    with library.reading() as conn:
        parts = [
            (image_ids, vectors @ row[:-1] + row[-1])
            for _, image_ids, vectors in embedded_pages(conn, model, 0)
        ]
        out = library.rows(
            "SELECT images.id FROM tag_examples JOIN images USING (hash) WHERE tag_id = ? "
            "UNION SELECT image_id FROM hidden",
            [tag.id],
        )
        seen = library.rows("SELECT image_id FROM shown")
    if not parts:
        return Suggestions((), ())
    ids = np.concatenate([image_ids for image_ids, _ in parts])
    margins = np.concatenate([some for _, some in parts])
    kept = np.isin(ids, [number for (number,) in seen]) & ~np.isin(ids, [n for (n,) in out])
    ids, margins = ids[kept], margins[kept]
    best = np.argsort(-margins, kind="stable")[:count]
    likely = ids[best]
    nearest = np.argsort(np.abs(margins - line), kind="stable")[: 2 * count]
    uncertain = [number for number in ids[nearest].tolist() if number not in set(likely.tolist())]
    return Suggestions(tuple(likely.tolist()), tuple(uncertain[:count]))
