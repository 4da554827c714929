"""The collections of a library on Milvus: one for each model, which an alias picks, and one beside.

The alias is the library's name. What a library must know in all, such as its cameras, and the files
that show no picture, are small rows of the collection ``NAME__about``.
"""

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
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

VERSION = 1  # of entities and their tokens
LOOK_S = 5.0  # between two looks at which collection is in use
VALUES_S = 10.0  # between two looks at the values that there are
MODEL_ID = 1  # of the one model that a collection is of
INDEX = "FOVEA_MILVUS_INDEX"
INDEXES: dict[str, dict[str, Any]] = {
    "HNSW": {"M": 24, "efConstruction": 200},
    "FLAT": {},
    "IVF_FLAT": {"nlist": 1024},
    "IVF_SQ8": {"nlist": 1024},
    "DISKANN": {},
}


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
        """Return the collection in use. Raise ``LibraryError`` before anything is indexed."""
        found = self.used()
        if found is None:
            raise LibraryError(
                f"nothing is indexed in {self.address} yet: "
                f"fovea index FOLDER --library {self.address}"
            )
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

    def make(self, model: ModelRow) -> str:
        """Make a model's collection if it is missing; return its name. Queries find it later."""
        name = self.collection_of(model.identity)
        if not self.exists(name):
            described = {
                "name": model.name,
                "identity": model.identity,
                "dim": model.dim,
                "source": model.source,
            }
            text = json.dumps({"fovea": VERSION, "model": described})
            self._create(name, schema(model.dim, text), *_index())
        if not self.exists(self.about):
            self._create(self.about, _about_schema(), "FLAT", {})
        return name

    def activate(self, collection: str) -> None:
        """Let the library use a collection from now on: the switch that nobody waits for."""
        alias = self.address.name
        verb = "alter_alias" if self.exists(alias) else "create_alias"
        self.client.run(verb, collection, alias)
        self.used(now=True)

    def _create(self, name: str, columns: Any, kind: str, params: dict[str, Any]) -> None:
        client = self.client
        indexes = client.run_local("prepare_index_params")
        indexes.add_index("vector", index_type=kind, metric_type="IP", params=params)
        for field in columns.fields:
            if field.name in ("number", "moment"):
                indexes.add_index(field.name, index_type="STL_SORT")
        client.run("create_collection", name, schema=columns, consistency_level="Bounded")
        client.run("create_index", name, indexes)
        client.run("load_collection", name)

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
