"""Answer queries from Milvus: ``seam.asking`` over a collection and the rows that are held here."""

import json
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np

from fovea.search.errors import Unanswerable
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.facts.folded import fold
from fovea.search.library.facts.folded import words as words_of
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow
from fovea.search.query.filename_search import BEGINNING, BEGUN, UNSPACED
from fovea.search.query.filters import (
    FILTERS,
    Filter,
    asks_for_hidden,
    dated,
    selection,
)
from fovea.search.query.rank import DEEPEST, name_order
from fovea.search.seam.asking import Index

from .collections import Cluster
from .desk import Desk
from .entity import FACTS, files_of, moment
from .expressions import NOTHING, Known, all_of, among, both, either, meeting, without
from .reading import MOST_NUMBERS, descending, pages
from .tokens import parts_of_word, token

__all__ = ["REACH", "ClusterIndex", "ClusterSource"]

REACH = 100_000  # pictures of a list by date or name that can be reached
MOST_CHECKED = 20_000  # pictures that SQLite looks at for one query
BY_NAME = 100_000  # pictures that are sorted by name
SAMPLED = 400  # pictures that represent the whole library
VECTORS = 20_000  # that are kept of the last answers
WITH_VECTORS = 2_000  # hits whose vectors come with them
NAMED = 200  # pictures looked at for their names
CHUNK = 1_000  # rows that are fetched whole at a time
HIDDEN = 10_000
LAST = moment("9999") * 10


class _Vectors:
    """The vectors of the last answers, by image."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()

    def put(self, collection: str, number: int, vector: Sequence[float]) -> None:
        self._kept[collection, number] = np.asarray(vector, np.float16)
        while len(self._kept) > VECTORS:
            self._kept.popitem(last=False)

    def get(self, collection: str, number: int) -> np.ndarray | None:
        found = self._kept.get((collection, number))
        return None if found is None else found.astype(np.float32)


class ClusterIndex:
    """The embeddings of a library on Milvus, in the place of ``VectorIndex``."""

    kind = "milvus"
    recall = 1.0  # not measured there; docs/scale.md has what was measured

    def __init__(self, cluster: Cluster, model: ModelRow, collection: str) -> None:
        self.cluster, self.model, self.collection = cluster, model, collection
        self.kept = _Vectors()
        self.around: tuple[Any, Any] | None = None  # the surroundings, with their key

    def __len__(self) -> int:
        used = self.cluster.used()
        return 0 if used is None else self.cluster.client.count(used.collection)

    def refresh(self, library: Library | None = None) -> None:
        """Do nothing: Milvus is as fresh as it is."""

    def save(self, library: Library | None = None) -> bool:
        """Do nothing: Milvus keeps its own."""
        return False

    def vectors(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return places in ``image_ids``, int64 (m,), and vectors, float32 (m, d)."""
        client = self.cluster.client
        numbers = [int(one) for one in image_ids]
        kept = {one: self.kept.get(self.collection, one) for one in numbers}
        missing = [one for one, vector in kept.items() if vector is None]
        for first in range(0, len(missing), CHUNK):
            part = missing[first : first + CHUNK]
            found = f"number in {part}"
            for row in client.query(self.collection, found, ["number", "vector"]):
                self.kept.put(self.collection, int(row["number"]), row["vector"])
                kept[int(row["number"])] = np.asarray(row["vector"], np.float16).astype(np.float32)
        there = [place for place, one in enumerate(numbers) if kept[one] is not None]
        vectors = [vector for one in numbers if (vector := kept[one]) is not None]
        shape = len(vectors), self.model.dim
        return np.array(there, np.int64), np.array(vectors, np.float32).reshape(shape)

    def as_index(self) -> VectorIndex:
        """Return itself as what engines and searchers take, which ask it no more than an index."""
        index: Index = self
        return cast(VectorIndex, index)


class ClusterSource:
    """A library on Milvus as queries see it, by one thread."""

    def __init__(self, index: ClusterIndex, library: Library) -> None:
        self.index, self.desk = index, Desk(library)
        self.cluster, self.client = index.cluster, index.cluster.client
        self.library, self.collection = library, index.collection

    # Filters

    def check(self, filters: Sequence[Filter]) -> None:
        """Raise ``Unanswerable`` for a filter that Milvus cannot answer, naming it."""
        meeting(filters, self._known())
        for entry in filters:
            if entry.kind == "place" and not entry.negated:
                self._check_place(entry)

    def _check_place(self, entry: Filter) -> None:
        found = meeting([Filter("place", entry.value)], self._known()).surely
        if not self.client.query(self.collection, found, ["number"], limit=1):
            value = entry.value if len(entry.value) <= 20 else f"{entry.value[:19]}…"
            message = f"no picture here is from a place called {value!r}."
            raise Unanswerable(message, "query.unknown_place", found=repr(value), places="–")

    def _known(self) -> Known:
        return Known(self.cluster.values(), self.desk.marked)

    def expression(self, filters: Sequence[Filter]) -> str:
        """Return the expression for what passes the filters and is not hidden.

        Raise ``Unanswerable`` where it would have to be told apart by hand for too many.
        """
        meets = meeting(filters, self._known())
        found = meets.surely
        if not meets.is_exact:
            passing = self._decided(filters, without(meets.maybe, meets.surely))
            found = either(found, f"number in {passing}" if passing else NOTHING)
        if asks_for_hidden(filters):
            return found
        hidden = self.desk.marked("hidden")
        if len(hidden) > HIDDEN:
            message = f"more than {HIDDEN:,} pictures are hidden; a library on Milvus takes no more"
            raise Unanswerable(message, "query.not_on_milvus", kind="is:hidden")
        return without(found, among(hidden)) if hidden else found

    def _decided(self, filters: Sequence[Filter], doubtful: str) -> list[int]:
        """Return which of the pictures in doubt pass, as SQLite decides by their rows."""
        numbers = self._few(doubtful, filters)
        if not numbers:
            return []
        self.hold(numbers)
        chosen, values = selection(self.library, filters)
        sql = f"SELECT shown.image_id FROM {chosen} AND shown.image_id IN "
        sql += "(SELECT value FROM json_each(?))"
        return sorted(self.desk.numbers(sql, [*values, json.dumps(numbers)]))

    def _few(self, doubtful: str, filters: Sequence[Filter]) -> list[int]:
        """Return the pictures that are in doubt. Raise ``Unanswerable`` for too many."""
        if doubtful == NOTHING:
            return []
        count = self.client.count(self.collection, doubtful)
        if count > MOST_CHECKED:
            kinds = sorted({entry.kind for entry in filters} & {"in", "name", "near"})
            named = " and ".join(f"{kind}:" for kind in kinds) or "this"
            message = (
                f"{named} leaves {count:,} pictures that Milvus cannot tell apart, and at most "
                f"{MOST_CHECKED:,} are looked at one by one; add a filter that leaves fewer, such "
                "as in: with a folder's whole path, or on:"
            )
            raise Unanswerable(message, "query.too_many_on_milvus", count=count)
        rows = pages(self.client, self.collection, doubtful, ["number"])
        return [int(row["number"]) for page in rows for row in page]

    # Rows

    def hold(self, image_ids: Collection[int]) -> None:
        """See to it that the rows of images here are those of Milvus."""
        numbers = sorted({int(one) for one in image_ids})
        for first in range(0, len(numbers), CHUNK):
            part = numbers[first : first + CHUNK]
            rows = self.client.query(self.collection, f"number in {part}", ["number", "stamp"])
            stamps = {int(row["number"]): int(row["stamp"]) for row in rows}
            stale = self.desk.stale(stamps)
            gone = [one for one in part if one not in stamps]
            gone = self._there(gone) if gone else gone
            fresh = self._entities(f"number in {stale}") if stale else []
            self.desk.put(fresh, gone)

    def _there(self, numbers: Sequence[int]) -> list[int]:
        return self.desk.numbers(
            "SELECT image_id FROM held WHERE image_id IN (SELECT value FROM json_each(?))",
            [json.dumps(numbers)],
        )

    def hold_content(self, digest: bytes) -> None:
        """See to it that the row of a content is here, if the library has it."""
        rows = self.client.query(self.collection, among([digest]), ["number"])
        self.hold([int(row["number"]) for row in rows])

    def _entities(self, expression: str) -> list[dict[str, Any]]:
        return self.client.query(self.collection, expression, FACTS)

    # Vectors

    def vector(self, image_id: int, at: int | None = None) -> np.ndarray | None:
        """Return an image's embedding, float32 (d,), unit length; None if it has none.

        No moments of videos are in Milvus, so that none has one ``at`` a time.
        """
        if at is not None:
            return None
        _, found = self.vectors(np.array([image_id], np.int64))
        return None if not len(found) else _unit(found)[0]

    def moments(self, image_ids: np.ndarray, vector: np.ndarray) -> Mapping[int, int]:
        """Return nothing: a video goes by the frame that stands for it."""
        return {}

    def vectors(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return places in ``image_ids``, int64 (m,), and vectors, float32 (m, d)."""
        return self.index.vectors(image_ids)

    def sample(self) -> np.ndarray:
        """Return the embeddings of the pictures with the smallest numbers, which are at random."""
        count = max(1, self.client.count(self.collection))
        below = MOST_NUMBERS
        if count > 2 * SAMPLED:
            below = int(MOST_NUMBERS * min(1.0, 1.5 * SAMPLED / count))
        rows = self.client.query(self.collection, f"number < {below}", ["number", "vector"])
        rows = sorted(rows, key=lambda row: int(row["number"]))[:SAMPLED]
        found = [row["vector"] for row in rows]
        return np.array(found, np.float32).reshape(len(found), self.index.model.dim)

    # Order

    def eligible(self, filters: Sequence[Filter], without: int | None) -> "_Eligible":
        """Return what an answer may hold."""
        return _Eligible(self, self.expression(filters), without)

    def browse(
        self, filters: Sequence[Filter], sort: str | None, limit: int
    ) -> tuple[np.ndarray, int]:
        """Return the first images that pass, and how many can be reached, at most ``REACH``."""
        found = self.expression(filters)
        count = self.client.count(self.collection, found)
        total = min(count, REACH)
        if not total:
            return np.empty(0, np.int64), 0
        wanted = min(limit, total)
        by_name = sort == "name"
        rows = (self._by_name if by_name else self._newest)(found, filters, count)
        numbers = [int(row["number"]) for row in islice(rows, wanted)]
        return np.array(numbers, np.int64), total

    def _newest(
        self, found: str, filters: Sequence[Filter], count: int
    ) -> Iterator[dict[str, Any]]:
        """Yield ``count`` rows by date, the newest first; ties by number, the largest first."""
        plain, odd = self.parted(found, filters)
        moved = self.dated(odd, filters)
        known = count if plain == found else None
        rows = descending(
            self.client, self.collection, plain, "moment", -1, LAST, ["moment"], known
        )
        waiting = sorted(
            ({"number": number, "moment": when} for number, when in moved.items()),
            key=lambda row: (row["moment"], row["number"]),
        )
        for row in rows:
            key = row["moment"], row["number"]
            while waiting and (waiting[-1]["moment"], waiting[-1]["number"]) > key:
                yield waiting.pop()
            yield row
        yield from reversed(waiting)

    def parted(self, found: str, filters: Sequence[Filter]) -> tuple[str, list[int]]:
        """Part pictures from those of which filters may choose some files, whose date then differs.

        Return the expression of the former and the numbers of the others.
        """
        if not any(FILTERS[entry.kind].of_files and not entry.negated for entry in filters):
            return found, []
        odd = both(found, "is_plain == false and is_exact == false")
        return without(found, odd), self._few(odd, filters)

    def dated(self, numbers: Sequence[int], filters: Sequence[Filter]) -> dict[int, int]:
        """Return the moments of pictures as of those files that pass."""
        if not numbers:
            return {}
        self.hold(numbers)
        shown, values = dated(filters)
        sql = f"SELECT image_id, date FROM {shown} WHERE image_id IN "
        sql += "(SELECT value FROM json_each(?))"
        rows = self.library.rows(sql, [*values, json.dumps(list(numbers))])
        return {int(number): moment(date) for number, date in rows}

    def _by_name(
        self, found: str, filters: Sequence[Filter], count: int
    ) -> Iterator[dict[str, Any]]:
        """Yield ``count`` rows by the name of the first file that passes; ties by number."""
        if count > BY_NAME:
            message = (
                f"sort:name orders at most {BY_NAME:,} pictures of a library on Milvus, and these "
                f"are {count:,}; add a filter, or leave sort:name out"
            )
            raise Unanswerable(message, "query.too_many_on_milvus", count=count)
        fields = ["number", "name", "is_plain"]
        read = pages(self.client, self.collection, found, fields, count=count)
        rows = [row for page in read for row in page]
        yield from self._named_in_order(rows, filters)

    def _named_in_order(
        self, rows: Sequence[dict[str, Any]], filters: Sequence[Filter]
    ) -> list[dict[str, Any]]:
        names = {int(row["number"]): row["name"] for row in rows}
        odd = [int(row["number"]) for row in rows if not row["is_plain"]]
        if odd and any(FILTERS[entry.kind].of_files for entry in filters):
            self.hold(odd)
            name, values = name_order(filters)
            sql = f"SELECT {name}, shown.image_id FROM shown WHERE shown.image_id IN "
            sql += "(SELECT value FROM json_each(?))"
            names |= {
                int(number): said
                for said, number in self.library.rows(sql, [*values, json.dumps(odd)])
            }
        return sorted(
            rows,
            key=lambda row: (names[int(row["number"])].encode("utf-8"), int(row["number"])),
        )

    def ordered(
        self, image_ids: np.ndarray, filters: Sequence[Filter], sort: str | None
    ) -> np.ndarray:
        """Return those of the images that are still there, by date or name."""
        numbers, rows = [int(one) for one in image_ids], []
        fields = ["number", "name", "moment", "is_plain", "is_exact"]
        for first in range(0, len(numbers), CHUNK):
            part = numbers[first : first + CHUNK]
            rows += self.client.query(self.collection, f"number in {part}", fields)
        if sort == "name":
            ordered = self._named_in_order(rows, filters)
        else:
            when = {int(row["number"]): row["moment"] for row in rows}
            if any(FILTERS[entry.kind].of_files and not entry.negated for entry in filters):
                odd = [r["number"] for r in rows if not (r["is_plain"] or r["is_exact"])]
                when |= self.dated([int(one) for one in odd], filters)
            ordered = sorted(
                rows, key=lambda row: (when[int(row["number"])], row["number"]), reverse=True
            )
        return np.array([int(row["number"]) for row in ordered], np.int64)


class _Eligible:
    """What an answer may hold: the pictures that meet an expression, without one."""

    def __init__(self, source: ClusterSource, found: str, without: int | None) -> None:
        self._source = source
        self._found = found if without is None else both(found, f"number != {without}")

    def count(self) -> int:
        """Count them."""
        return self._source.client.count(self._source.collection, self._found)

    def searchable(self) -> int:
        """Count them: all have an embedding."""
        return min(self.count(), DEEPEST)

    def nearest(self, vector: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest to a vector: ids (n,), cosines (n,)."""
        source = self._source
        fields = ["number", "vector"] if limit <= WITH_VECTORS else ["number"]
        found = (
            []
            if limit < 1
            else source.client.search(
                source.collection, vector, limit, self._found, fields, {"ef": max(128, 2 * limit)}
            )
        )
        for _, row in found:
            if "vector" in row:
                source.index.kept.put(source.collection, int(row["number"]), row["vector"])
        ids = np.array([int(row["number"]) for _, row in found], np.int64)
        scores = np.array([score for score, _ in found], np.float32)
        order = np.argsort(-scores, kind="stable")
        return ids[order], np.clip(scores[order], -1, 1)

    def scores(self, vector: np.ndarray, image_ids: Sequence[int]) -> dict[int, float]:
        """Return the cosines of those of the images that are there."""
        places, vectors = self._source.vectors(np.array(image_ids, np.int64))
        cosines = _unit(vectors) @ vector
        return {
            int(image_ids[place]): float(cosine)
            for place, cosine in zip(places.tolist(), cosines.tolist(), strict=True)
        }

    def named(self, words: str, limit: int) -> list[int]:
        """Return images whose file and folder names have all words.

        Those whose file's own name has them all come first, the shortest names first. If these are
        few, some follow whose file's own name has a word that begins with the last one.
        """
        tokens = words_of(words)
        if not tokens or limit < 1:
            return []
        own = sorted({one for word in tokens for one in _own(word)})
        found = self._candidates(_having(own), tokens, own_name=True)
        each = [
            either(_having(_own(word)), _having([token("folder word", word)])) for word in tokens
        ]
        if len(found) < limit:
            found += self._candidates(all_of(each), tokens, own_name=False)
            found = list(dict.fromkeys(found))
        *others, last = tokens
        if len(found) < min(limit, BEGUN) and len(last) >= BEGINNING and not UNSPACED.search(last):
            each = [*each[:-1], _having(parts_of_word(last))]
            found += self._candidates(all_of(each), others, own_name=False, begun=last)
            return list(dict.fromkeys(found))[: min(limit, BEGUN)]
        return found[:limit]

    def _candidates(
        self, meeting: str, tokens: list[str], *, own_name: bool, begun: str = ""
    ) -> list[int]:
        source = self._source
        rows = source.client.query(
            source.collection, both(self._found, meeting), ["number", "files"], limit=NAMED
        )
        lengths: dict[int, int] = {}
        for row in rows:
            for file in files_of(row):
                folder, _, name = file.path.decode("utf-8", "surrogateescape").rpartition("/")
                own = set(words_of(name))
                has = set(own)
                if not own_name:
                    has |= set(
                        words_of(folder[len(file.root.decode("utf-8", "surrogateescape")) :])
                    )
                if all(_is_among(word, has) for word in tokens) and (
                    not begun or any(word.startswith(begun) for word in own)
                ):
                    number, length = int(row["number"]), len(fold(name))
                    lengths[number] = min(length, lengths.get(number, length))
        return sorted(lengths, key=lambda number: (lengths[number], number))

    def texted(self, words: str, limit: int) -> list[int]:
        """Return nothing: text in pictures is not known in Milvus."""
        return []


def _own(word: str) -> list[int]:
    """Return the tokens of a file whose own name has a word; one of scripts without spaces
    between words is found anywhere in it."""
    return parts_of_word(word) if UNSPACED.search(word) else [token("word", word)]


def _having(tokens: Sequence[int]) -> str:
    return f"array_contains_all(tokens, {list(tokens)})"


def _is_among(word: str, words: Collection[str]) -> bool:
    return word in words or (bool(UNSPACED.search(word)) and any(word in one for one in words))


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit
