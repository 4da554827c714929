"""Answer questions about a library on Milvus, and say what it has in all."""

import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np

from fovea.search.clip.protocols import TextEncoder
from fovea.search.library.library import Library
from fovea.search.overview.timeline import Month, Timeline
from fovea.search.query.empty import Hint
from fovea.search.query.filters import Filter
from fovea.search.query.likelihood import Background, Surroundings, likelihoods_of
from fovea.search.query.rank import Ranking
from fovea.search.query.run import Searcher

from .client import AT_ONCE
from .collections import Cluster, Kinds
from .desk import Desk
from .expressions import both
from .reading import descending, pages
from .source import LAST, ClusterIndex, ClusterSource
from .tokens import parts_of_folder, token

__all__ = ["ClusterSearcher", "menus", "opened", "timeline"]

_known: dict[str, tuple[str, ClusterIndex]] = {}  # by address: the collection, and its index
_turn = threading.Lock()


@dataclass(frozen=True, slots=True)
class ClusterSearcher(Searcher):
    """Answers as ``Searcher`` does; ``library`` has the rows that are held here."""

    answers: ClusterSource | None = None  # None before anything is indexed

    @classmethod
    def on(
        cls,
        cluster: Cluster,
        library: Library,
        encoder: TextEncoder | None,
        background: Background | None,
    ) -> "ClusterSearcher":
        """Make one for a thread, whose connection ``library`` is."""
        index = opened(cluster, library)
        if index is None:
            return cls(library, None, encoder, None)
        source = ClusterSource(index, library)
        return cls(library, index.as_index(), encoder, background, answers=source)

    @property
    def source(self) -> Any:
        """The library as questions are put to it."""
        assert self.answers is not None
        return self.answers

    def _is_empty(self, question: Any) -> bool:
        return self.answers is None or self.encoder is None

    def _hints(self, filters: Sequence[Filter]) -> tuple[Hint, ...]:
        return ()

    def _likelihoods(self, ranking: Ranking) -> np.ndarray | None:
        if self.answers is None or self.background is None:
            return None
        background, source = self.background, self.answers
        return likelihoods_of(ranking, background, source.vectors, lambda: self.around(background))

    def around(self, background: Background) -> Surroundings:
        """Return the surroundings of the library on Milvus."""
        return _surroundings(self.source, background)


def opened(cluster: Cluster, library: Library) -> ClusterIndex | None:
    """Return the index of the model in use, and let the rows here be of that model.

    None before anything is indexed.
    """
    used = cluster.used()
    if used is None:
        return None
    Desk(library).use_model(used.model)
    with _turn:
        known = _known.get(str(cluster.address))
        if known is None or known[0] != used.collection or known[1].cluster is not cluster:
            current = library.model()
            assert current is not None
            index = ClusterIndex(cluster, current, used.collection)
            known = _known[str(cluster.address)] = used.collection, index
        return known[1]


def _surroundings(source: ClusterSource, background: Background) -> Surroundings:
    """Return the surroundings of the library, measured anew once it has grown by 1/16 or so."""
    count = source.client.count(source.collection)
    key = (source.collection, count // max(1, 1 << max(0, count.bit_length() - 5)))
    index = source.index
    if index.around is None or index.around[0] != key:
        index.around = key, Surroundings.of(background.signs, source.sample())
    return index.around[1]


def timeline(source: ClusterSource, filters: tuple[Filter, ...]) -> Timeline:
    """Count the images that meet every filter, by month, as ``overview.timeline`` does."""
    source.check(filters)
    plain, odd = source.parted(source.expression(filters), filters)
    counts: Counter[str] = Counter()
    total = source.client.count(source.collection, plain)
    if total <= 4 * AT_ONCE:
        for rows in pages(source.client, source.collection, plain, ["moment"]):
            counts.update(_month(int(row["moment"])) for row in rows)
    else:
        _count(source, plain, -1, LAST, counts)
    counts.update(_month(when) for when in source.dated(odd, filters).values())
    months = [Month(month, counts[month]) for month in sorted(filter(None, counts), reverse=True)]
    return Timeline(sum(counts.values()), tuple(months), counts.get("", 0))


MONTH = 10**9  # of moments, whose last digits are days, hours, minutes, seconds and a flag


def _count(source: ClusterSource, found: str, low: int, high: int, counts: Counter[str]) -> None:
    """Halve a range of dates until each part is one month, or has nothing."""
    part = both(found, f"moment >= {low} and moment < {high}")
    count = source.client.count(source.collection, part)
    if not count:
        return
    if low < 0 and high <= 0 or (low >= 0 and low // MONTH == (high - 1) // MONTH):
        counts[_month(low)] += count
        return
    middle = 0 if low < 0 else max(low // MONTH + 1, (low + high) // 2 // MONTH) * MONTH
    _count(source, found, low, middle, counts)
    _count(source, found, middle, high, counts)


def _month(moment: int) -> str:
    if moment < 0:
        return ""
    digits = f"{moment // MONTH:06d}"
    return digits[:4] if digits[4:] == "00" else f"{digits[:4]}-{digits[4:]}"


def menus(source: ClusterSource | None, most: int) -> dict[str, Any]:
    """Return what there is to filter by, with numbers of pictures: ``most`` values of each kind.

    Folders are the indexed ones and the next levels below these. Hidden pictures count, too.
    """
    if source is None:
        return {
            "folders": [], "cameras": [], "formats": [], "places": [], "first": None, "last": None,
        }  # fmt: skip
    client, collection = source.client, source.collection

    def counted(expression: str) -> int:
        return client.count(collection, expression)

    values = source.cluster.values()
    found: dict[str, Any] = {}
    for name, kind in (("folders", "folder"), ("cameras", "camera"), ("formats", "format")):
        if kind == "folder":
            paths = sorted(
                os.fsdecode(unquote_to_bytes(body["path"]))
                for body in source.cluster.bodies(Kinds.FOLDER)
            )
            rows: list[dict[str, Any]] = [
                {
                    "path": path,
                    "name": os.path.basename(path) or path,
                    "count": counted(f"array_contains_all(tokens, {parts_of_folder(path)[0]})"),
                }
                for path in paths[:most]
            ]
        else:
            rows = [
                {"name": text, "count": counted(f"{kind} == {token(kind, text)}")}
                for text in values[kind][:most]
            ]
        ordered = sorted(rows, key=lambda row: (-row["count"], row["name"]))
        found[name] = [row for row in ordered if row["count"]]
    newest = descending(client, collection, "number >= 0", "moment", 0, LAST, ["moment"])
    last = next(newest, None)
    return found | {
        "places": [],
        "first": _day(_earliest(source)),
        "last": None if last is None else _day(int(last["moment"])),
    }


def _earliest(source: ClusterSource) -> int:
    """Return the earliest moment, found by halving: -1 where there is none."""
    low, high = 0, LAST
    if not source.client.count(source.collection, "moment >= 0"):
        return -1
    while high - low > MONTH // 10**3:  # a day
        middle = (low + high) // 2
        found = f"moment >= {low} and moment < {middle}"
        low, high = (
            (low, middle) if source.client.count(source.collection, found) else (middle, high)
        )
    return low


def _day(moment: int) -> str | None:
    """Return the day of a moment, as ISO 8601; of a year or month its first."""
    if moment < 0:
        return None
    digits = f"{moment // 10**7:08d}"
    month, day = max("01", digits[4:6]), max("01", digits[6:])
    return f"{digits[:4]}-{month}-{day}"
