"""The collections of a library on Milvus: one for each model, which an alias picks, and one beside.

The alias is the library's name. What a library must know in all, such as its cameras, and the files
that show no picture, are small rows of the collection ``NAME__about``.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fovea.search.errors import LibraryError
from fovea.search.library.rows import ModelRow

from .address import Address
from .client import SESSION, Client
from .entity import CODED, schema
from .lease import Lease
from .reading import pages
from .tokens import NUMBER_BITS, token

__all__ = ["INDEX", "INDEXES", "Cluster", "Kinds", "Used"]

log = logging.getLogger(__name__)

VERSION = 1  # of entities and their tokens
LOOK_S = 5.0  # between two looks at which collection is in use
VALUES_S = 10.0  # between two looks at the values that there are
INDEXED = ("vector", "number", "moment")
MODEL_ID = 1  # of the one model that a collection is of
INDEX = "FOVEA_MILVUS_INDEX"
INDEXES: dict[str, dict[str, Any]] = {
    "HNSW": {"M": 24, "efConstruction": 200},
    "FLAT": {},
    "DISKANN": {},
}
COARSE = "IVF"  # begins the kinds that compare few of the pictures: filters leave hardly any answer


class Kinds:
    """What a row of ``NAME__about`` is of."""

    VALUE, FOLDER, ROOT, UNREAD, WRITER = range(1, 6)


@dataclass(frozen=True, slots=True)
class Used:
    """The collection in use, with its model."""

    collection: str
    model: ModelRow


class Cluster:
    """A library on Milvus, as all threads of a process share it."""

    def __init__(self, address: Address, client: Client | None = None) -> None:
        self.address = address
        self.client = Client(address) if client is None else client
        self.about = f"{address.name}__about"
        self.lease = Lease(self, Kinds.WRITER)
        self._lock = threading.Lock()
        self._used: tuple[float, Used | None] | None = None
        self._right: set[str] = set()  # collections whose index is not coarse
        self._values: tuple[float, dict[str, tuple[str, ...]]] | None = None

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    # The model in use

    def used(self, *, now: bool = False) -> Used | None:
        """Return the collection in use; None before anything is indexed.

        It may be that of ``LOOK_S`` seconds ago, unless it is to be looked up ``now``.
        """
        known = self._used
        if known is not None and not now and time.monotonic() < known[0] + LOOK_S:
            return known[1]
        found = self._described(self.address.name)
        with self._lock:
            self._used = time.monotonic(), found
        return found

    def needed(self) -> Used:
        """Return the collection in use, to be searched.

        Raise ``LibraryError`` before anything is indexed, and where its index leaves out pictures.
        """
        found = self.used()
        if found is None:
            raise LibraryError(
                f"nothing is indexed in {self.address} yet: "
                f"fovea index FOLDER --library {self.address}"
            )
        if found.collection not in self._right:
            if coarse := self._coarse(found.collection):
                raise LibraryError(
                    f"{self.address} has an index of the kind {coarse[1]}, which leaves out "
                    f"pictures; to replace it: fovea index --library {self.address}"
                )
            self._right.add(found.collection)
        return found

    def collection_of(self, identity: str) -> str:
        """Return the name of a model's collection."""
        return f"{self.address.name}__{identity[:16]}"

    def exists(self, name: str) -> bool:
        """Whether there is a collection or alias of that name."""
        return bool(self.client.run("has_collection", name))

    def _described(self, name: str) -> Used | None:
        if not self.exists(name):
            return None
        found = self.client.run("describe_collection", name)
        try:
            said = json.loads(found["description"])
            version, model = said["fovea"], said["model"]
            row = ModelRow(
                MODEL_ID, model["name"], model["identity"], int(model["dim"]), model["source"]
            )
        except (ValueError, KeyError, TypeError):
            raise LibraryError(
                f"{self.address} is a collection of another program; choose another name"
            ) from None
        if version != VERSION:
            raise LibraryError(
                f"{self.address} was written by another fovea, in version {version} of its "
                f"entities; this one knows {VERSION}; use that one, or index into another name"
            )
        return Used(found["collection_name"], row)

    def number_of(self, collection: str) -> int:
        """Return Milvus's number of a collection: another of the same name has another."""
        return int(self.client.run("describe_collection", collection)["collection_id"])

    def make(self, model: ModelRow) -> str:
        """See to it that a model has its collection; return its name. Queries find it later.

        Whatever is missing of it is made: an earlier run may have ended in the middle.
        """
        name = self.collection_of(model.identity)
        described = {
            "name": model.name,
            "identity": model.identity,
            "dim": model.dim,
            "source": model.source,
        }
        text = json.dumps({"fovea": VERSION, "model": described})
        self._complete(name, schema(model.dim, text), _index)
        self._complete(self.about, _about_schema(), lambda: ("FLAT", {}))
        return name

    def activate(self, collection: str) -> None:
        """Let the library use a collection from now on: the switch that nobody waits for."""
        alias = self.address.name
        verb = "alter_alias" if self.exists(alias) else "create_alias"
        self.client.run(verb, collection, alias)
        self.used(now=True)

    def _complete(
        self, name: str, columns: Any, index: Callable[[], tuple[str, dict[str, Any]]]
    ) -> None:
        """Make a collection, its indexes, and load it: what of this is not done yet."""
        client = self.client
        if not self.exists(name):
            index()  # which may refuse
            client.run("create_collection", name, schema=columns, consistency_level="Bounded")
        elif coarse := self._coarse(name):
            log.warning("the index of %s is of the kind %s, and is replaced", name, coarse[1])
            client.run("release_collection", name)
            client.run("drop_index", name, coarse[0])
        indexes = client.run_local("prepare_index_params")
        fields = [field.name for field in columns.fields if field.name in INDEXED]
        for field in fields:
            if client.run("list_indexes", name, field_name=field):
                continue
            if field == "vector":
                kind, params = index()
                indexes.add_index(field, index_type=kind, metric_type="IP", params=params)
            else:
                indexes.add_index(field, index_type="STL_SORT")
        if len(indexes):
            client.run("create_index", name, indexes)
        if client.run("get_load_state", name)["state"].name != "Loaded":
            client.run("load_collection", name)

    def _coarse(self, collection: str) -> tuple[str, str] | None:
        """Return the name and kind of a collection's index of vectors, if that is a coarse one."""
        for name in self.client.run("list_indexes", collection, field_name="vector"):
            kind = self.client.run("describe_index", collection, name)["index_type"]
            if kind.startswith(COARSE):
                return name, kind
        return None

    # What is beside the pictures

    def values(self) -> dict[str, tuple[str, ...]]:
        """Return the cameras, lenses and formats that there are, as of the last seconds."""
        known = self._values
        if known is not None and time.monotonic() < known[0] + VALUES_S:
            return known[1]
        found: dict[str, list[str]] = {kind: [] for kind in CODED}
        for body in self.bodies(Kinds.VALUE):
            found[body["kind"]].append(body["text"])
        made = {kind: tuple(sorted(texts)) for kind, texts in found.items()}
        self._values = time.monotonic(), made
        return made

    def bodies(self, kind: int, *, consistency: str = SESSION) -> Iterator[dict[str, Any]]:
        """Yield what rows of a kind say."""
        if self.exists(self.about):
            for rows in pages(
                self.client, self.about, f"kind == {kind}", ["body"], consistency=consistency
            ):
                yield from (row["body"] for row in rows)

    def note(self, kind: int, bodies: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Write what rows of a kind say, each under a key of its own."""
        rows = [
            {
                "key": f"{kind}-{token('about', key):016x}",
                "kind": kind,
                "number": token("about", key) >> (63 - NUMBER_BITS),
                "body": body,
                "vector": [0.0, 1.0],
            }
            for key, body in dict(bodies).items()
        ]
        for first in range(0, len(rows), 1000):
            self.client.upsert(self.about, rows[first : first + 1000])
        if kind == Kinds.VALUE:
            self._values = None

    def forget(self, kind: int, keys: Iterable[str]) -> None:
        """Remove rows of a kind."""
        names = [f'"{kind}-{token("about", key):016x}"' for key in keys]
        for first in range(0, len(names), 1000):
            self.client.delete(self.about, f"key in [{', '.join(names[first : first + 1000])}]")


def _index() -> tuple[str, dict[str, Any]]:
    """Return the kind of index that new collections get, and its parameters."""
    kind = os.environ.get(INDEX) or "HNSW"
    if kind not in INDEXES:
        raise LibraryError(f"{INDEX} is not one of {', '.join(INDEXES)}; correct it, or unset it")
    return kind, INDEXES[kind]


def _about_schema() -> Any:
    from pymilvus import CollectionSchema, DataType, FieldSchema

    return CollectionSchema(
        [
            FieldSchema("key", DataType.VARCHAR, max_length=64, is_primary=True),
            FieldSchema("kind", DataType.INT64),
            FieldSchema("number", DataType.INT64),
            FieldSchema("body", DataType.JSON),
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=2),  # every collection has one
        ],
        description=json.dumps({"fovea": VERSION}),
    )
