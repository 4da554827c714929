"""Write embeddings as clip-retrieval and LAION do: ``img_emb_*.npy`` and ``metadata_*.parquet``.

A part has one number: ``img_emb/img_emb_00000007.npy`` is float16 (n, d), rows of unit length;
``metadata/metadata_00000007.parquet`` has a row for each, in the same order. Files that could not
be embedded are in ``failed/failed_00000007.parquet``, with the reason. A part is there once its
metadata are. ``manifest.json`` names the model. While a part is written, ``embedding.part`` has its
number: what a killed run left of that one is removed, and nothing else ever is.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args

import numpy as np

from fovea.search.clip.disk import replace_file
from fovea.search.errors import FoveaError
from fovea.search.library.rows import ImageMetadata
from fovea.search.models.info import ModelInfo

from .destination import Known, Stamp, StampOf, differ
from .done import Done
from .items import ID_BYTES, Item, Result, escaped
from .lists import arrow

__all__ = ["WRITER", "Exchange", "Manifest", "check_exchange", "parts_in", "read_manifest"]

WRITER = "embedding"  # the lock of a folder that is filled
FORMAT = "fovea embeddings"
VERSION = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES = 4 << 20
PART = 2000  # pictures in a part, unless another number is asked for
FOLDERS = ("img_emb", "metadata", "failed")
UNDER_WAY = f"{WRITER}.part"  # the number of the part that is being written
KNOWN = {"metadata": ("id", "shard"), "failed": ("id", "shard", "state", "settled")}

Manifest = dict[str, Any]


def read_manifest(folder: Path) -> Manifest | None:
    """Read what a folder of embeddings says of itself; None if it says nothing.

    Raise ``FoveaError`` for a manifest that is damaged, or newer than this fovea.
    """
    path = folder / MANIFEST
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise FoveaError(f"{path} is not a file")
        with path.open("rb") as file:
            found = json.loads(file.read(MANIFEST_BYTES))
        model = found["model"]
        texts = [model["name"], model["identity"], model["source"], found["format"]]
        texts += found.get("folders", [])
        sound = all(isinstance(text, str) for text in texts) and type(model["dim"]) is int
        sound = sound and isinstance(found.get("folders", []), list)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise FoveaError(f"{folder} is not a folder, nor can it be one; name another") from None
    except OSError as exc:
        raise FoveaError(f"cannot read {path}: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise FoveaError(f"{path} is not a manifest of embeddings") from exc
    is_list = isinstance(found.get("folders", []), list)
    if (
        not sound
        or not is_list
        or found["format"] != FORMAT
        or type(found.get("version")) is not int
    ):
        raise FoveaError(f"{path} is not a manifest of embeddings")
    if found["version"] > VERSION:
        raise FoveaError(f"{path} was written by a newer fovea; update this one")
    manifest: Manifest = found
    return manifest


def part_of(folder: Path, kind: str, number: int) -> Path:
    """Return the file of a part: ``kind`` is "img_emb", "metadata" or "failed"."""
    ending = "npy" if kind == "img_emb" else "parquet"
    return folder / kind / f"{kind}_{number:08d}.{ending}"


def parts_in(folder: Path, kind: str) -> list[tuple[str, Path]]:
    """List the files of one kind, in order: what is between ``kind_`` and the ending, and each."""
    ending = ".npy" if kind == "img_emb" else ".parquet"
    start = f"{kind}_"
    try:
        names = sorted(os.listdir(folder / kind))
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise FoveaError(f"cannot list {folder / kind}: {exc.strerror}") from exc
    return [
        (name[len(start) : -len(ending)], folder / kind / name)
        for name in names
        if name.startswith(start) and name.endswith(ending)
    ]


class Exchange:
    """A folder of embeddings in parts, to be filled. One process at a time fills it."""

    def __init__(self, folder: Path, part: int | None = None) -> None:
        self.folder, self.part = folder, part or PART
        self.problems: list[tuple[bytes, str]] = []
        self.written = 0  # parts
        self._rows: list[Result] = []
        self._others: list[Result] = []  # failed, and shards that are whole
        self._number = 0  # of the next part
        self._told = Done()  # failures that a later run tries again, with their reasons
        self._pa = arrow()

    def prepare(self, model: ModelInfo, folders: Sequence[str] = ()) -> None:
        """Make the folder, or see that what is there goes with the model; note source folders.

        What a killed run left of a part is removed, so this is for whoever holds the lock.
        Raise ``FoveaError``, before anything is changed, if it holds another model's embeddings,
        something else, or parts that are incomplete or were not written here.
        """
        about = check_exchange(self.folder, model)
        self._check()
        before = [] if about is None else about.get("folders", [])
        known = [str(text) for text in before if isinstance(text, str)]
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "model": {
                "name": model.name,
                "identity": model.identity,
                "dim": model.dim,
                "source": model.source,
            },
            "dtype": "float16",
            "normalised": True,
            "folders": list(dict.fromkeys([*known, *folders])),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if manifest != about:  # first: without it, the folder would be somebody else's
                text = json.dumps(manifest, indent=1)
                replace_file(self.folder / MANIFEST, lambda file: file.write(text.encode()))
            for name in FOLDERS:
                (self.folder / name).mkdir(exist_ok=True)
            self._sweep()
        except OSError as exc:
            raise FoveaError(f"cannot write to {self.folder}: {exc.strerror}") from exc

    def _check(self) -> None:
        """Raise ``FoveaError`` for parts that are incomplete, or that cannot be gone on with."""
        vectors, metadata = (dict(parts_in(self.folder, kind)) for kind in FOLDERS[:2])
        lost = metadata.keys() - vectors.keys()
        if lost:
            raise FoveaError(
                f"{metadata[min(lost)]} has no vectors in img_emb; bring them back, or move it "
                "away to embed its pictures again"
            )
        alone = vectors.keys() - metadata.keys() - {self._under_way()}
        if alone:
            raise FoveaError(
                f"{vectors[min(alone)]} has no rows in metadata; bring them back, or move it away"
            )
        for kind, columns in KNOWN.items():
            for _, path in parts_in(self.folder, kind):
                _check_columns(path, columns)

    def _under_way(self) -> str | None:
        """Return the number of the part that a killed run was writing, as in its names."""
        try:
            text = (self.folder / UNDER_WAY).read_text("ascii", "replace")[:100]
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise FoveaError(f"cannot read {self.folder / UNDER_WAY}: {exc.strerror}") from exc
        return text if text.isdecimal() else None

    def _sweep(self) -> None:
        """Remove what a killed run left of its part, and find the next number."""
        there = {kind: {key for key, _ in parts_in(self.folder, kind)} for kind in FOLDERS}
        left = self._under_way()
        if left is not None and left in there["img_emb"] - there["metadata"]:
            part_of(self.folder, "img_emb", int(left)).unlink(missing_ok=True)
            there["img_emb"].discard(left)
        (self.folder / UNDER_WAY).unlink(missing_ok=True)
        numbers = [int(key) for keys in there.values() for key in keys if key.isdecimal()]
        self._number = max(numbers, default=-1) + 1

    def known(self, stamp_of: StampOf | None = None) -> Known:
        """Say what is there: 16 bytes of memory for each file, unless its shard is whole."""
        done, rows = Done(), []
        read: dict[str, Stamp] = {}
        for _, path in parts_in(self.folder, "failed"):
            for row in _read(path, KNOWN["failed"], ("reason", "size", "mtime_ns")):
                if row["state"] == "shard" and row["shard"]:
                    read[row["shard"]] = row.get("size"), row.get("mtime_ns")
                elif row["settled"]:
                    rows.append((row["id"], row["shard"]))
                else:
                    self._told.add(_told(row["id"], row.get("reason")))
        whole = {
            shard
            for shard, stamp in read.items()
            if stamp_of is None or not differ(stamp, stamp_of(shard))
        }
        begun: dict[str, set[bytes]] = {}
        for one, shard in rows:
            _add(one, shard, done, whole, begun)
        for _, path in parts_in(self.folder, "metadata"):
            for row in _read(path, KNOWN["metadata"]):
                _add(row["id"], row["shard"], done, whole, begun)
        return Known(done, frozenset(whole), {name: frozenset(ids) for name, ids in begun.items()})

    def take(self, result: Result) -> None:
        """Keep a result; write a part when there are enough."""
        if result.state == "embedded":
            self._rows.append(result)
        elif result.is_settled:
            self._others.append(result)
        elif result.state == "failed":
            told = _told(result.id, _reason(result))
            if told not in self._told:  # else an earlier run has said the same
                self._told.add(told)
                self._others.append(result)
        if max(len(self._rows), len(self._others)) >= self.part:
            self.finish()

    def finish(self) -> None:
        """Write a part of what is there: vectors, then their metadata, then what failed."""
        if not self._rows and not self._others:
            return
        number = self._number
        sign = f"{number:08d}".encode()
        replace_file(self.folder / UNDER_WAY, lambda file: file.write(sign))
        if self._rows:
            vectors = np.stack([np.asarray(row.vector, np.float32) for row in self._rows])
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            halves = vectors.astype(np.float16)  # (n, d)
            path = part_of(self.folder, "img_emb", number)
            replace_file(path, lambda file: np.save(file, halves, allow_pickle=False))
            self._write("metadata", number, list(map(_row, self._rows)), self._schema())
        if self._others:
            self._write("failed", number, list(map(_other, self._others)), self._other_schema())
        (self.folder / UNDER_WAY).unlink(missing_ok=True)
        self._rows, self._others = [], []
        self._number += 1
        self.written += 1

    def _write(self, kind: str, number: int, rows: list[dict[str, Any]], schema: Any) -> None:
        table = self._pa.Table.from_pylist(rows, schema=schema)
        path = part_of(self.folder, kind, number)
        replace_file(path, lambda file: self._pa.parquet.write_table(table, file))

    def _schema(self) -> Any:
        pa = self._pa
        kinds = {int: pa.int64(), float: pa.float64(), str: pa.string()}
        return pa.schema(
            [
                ("image_path", pa.string()),
                ("key", pa.string()),
                ("hash", pa.string()),
                ("path", pa.binary()),
                ("where", pa.string()),
                ("shard", pa.string()),
                ("bytes", pa.int64()),
                ("size", pa.int64()),
                ("mtime_ns", pa.int64()),
                ("ctime_ns", pa.int64()),
                ("id", pa.binary()),
                *((one.name, kinds[get_args(one.type)[0]]) for one in fields(ImageMetadata)),
            ]
        )

    def _other_schema(self) -> Any:
        pa = self._pa
        return pa.schema(
            [
                ("image_path", pa.string()),
                ("path", pa.binary()),
                ("state", pa.string()),
                ("reason", pa.string()),
                ("shard", pa.string()),
                ("settled", pa.bool_()),
                ("size", pa.int64()),
                ("mtime_ns", pa.int64()),
                ("id", pa.binary()),
            ]
        )


def check_exchange(folder: Path, model: ModelInfo) -> Manifest | None:
    """Return the manifest of a folder; None if there is nothing yet.

    Raise ``FoveaError`` if the folder holds another model's embeddings, or something else.
    """
    about = read_manifest(folder)
    if about is None:
        own = f"{WRITER}.", f"{MANIFEST}.part"  # the lock's, and what a killed run left
        if folder.is_dir() and any(not one.name.startswith(own) for one in folder.iterdir()):
            raise FoveaError(f"{folder} is not empty and has no {MANIFEST}; choose another folder")
        return None
    theirs = about["model"]
    if theirs["identity"] != model.identity:
        raise FoveaError(
            f"{folder} holds embeddings of {theirs['name']}, not {model.name}; "
            f"use --model {theirs['name']}, or choose another folder"
        )
    return about


def _add(
    one: bytes | None, shard: str | None, done: Done, whole: set[str], begun: dict[str, set[bytes]]
) -> None:
    if one is None or shard in whole:
        return
    if shard:
        begun.setdefault(shard, set()).add(one)
    else:
        done.add(one)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise ``FoveaError`` if a part lacks what tells which files are done."""
    pa = arrow()
    kinds = {"id": ("binary", "large_binary"), "settled": ("bool",)}
    try:
        schema = pa.parquet.read_schema(path)
        found = {name: str(schema.field(name).type) for name in columns if name in schema.names}
    except Exception as exc:  # of pyarrow's many kinds
        raise FoveaError(f"{path} is damaged; move this part away, and run again") from exc
    for name in columns:
        if found.get(name) not in kinds.get(name, ("string", "large_string")):
            raise FoveaError(
                f"{path} has no column {name} as fovea embed writes it; embed into another folder"
            )


def _read(path: Path, columns: Sequence[str], also: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield a part's rows; of ``also`` the columns that it has."""
    pa = arrow()
    try:
        with path.open("rb") as stream:
            file = pa.parquet.ParquetFile(stream)
            wanted = [*columns, *(name for name in also if name in file.schema_arrow.names)]
            for batch in file.iter_batches(batch_size=4096, columns=wanted):
                yield from batch.to_pylist()
    except Exception as exc:  # of pyarrow's many kinds, and text that is none
        raise FoveaError(f"{path} is damaged; move this part away, and run again") from exc


def _told(one: bytes | None, reason: object) -> bytes:
    """Return 16 bytes for a failure: of the item's id and the reason."""
    text = str(reason).encode("utf-8", "backslashreplace")
    return blake2b((one or b"") + text, digest_size=ID_BYTES).digest()


def _reason(result: Result) -> str | None:
    return None if result.reason is None else escaped(result.reason)


def _text(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) else value


def _key(item: Item) -> str:
    """Return the name as WebDataset has it: of a file without its folder and its endings."""
    base = item.name.rsplit(b"/", 1)[-1]
    if item.where == "shard":
        return os.fsdecode(base.split(b".", 1)[0])
    return os.fsdecode(os.path.splitext(base)[0])


def _row(result: Result) -> dict[str, Any]:
    item = result.item
    facts = {name: _text(value) for name, value in result.facts.items()}
    return facts | {
        "image_path": _text(os.fsdecode(item.name)),
        "key": _text(_key(item)),
        "hash": result.hash.hex(),
        "path": item.name,
        "where": item.where,
        "shard": escaped(item.shard) or None,
        "bytes": result.length,
        "size": result.size,
        "mtime_ns": result.mtime_ns,
        "ctime_ns": result.ctime_ns,
        "id": result.id,
    }


def _other(result: Result) -> dict[str, Any]:
    item, is_shard = result.item, result.state == "shard"
    size, mtime_ns = item.size, item.mtime_ns
    if is_shard:
        size, mtime_ns = result.size, result.mtime_ns
    elif item.where == "shard":
        mtime_ns = 0
    return {
        "image_path": _text(os.fsdecode(result.item.name)),
        "path": result.item.name,
        "state": result.state,
        "reason": _reason(result),
        "shard": escaped(result.item.shard) or None,
        "settled": result.is_settled,
        "size": None if size < 0 else size,
        "mtime_ns": mtime_ns or None,
        "id": result.id,
    }
