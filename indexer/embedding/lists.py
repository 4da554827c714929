"""Read lists of pictures: parquet files with a column of paths or URLs."""

import importlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import IO, Any

from fovea.indexer.decoding.limits import one_line
from fovea.search.errors import FoveaError

from .remote import is_url, normal, open_stream

__all__ = ["arrow", "names_in"]

COLUMNS = ("path", "image_path", "url")  # looked for in this order
ROWS = 4096  # read at a time
NAME = 4096  # bytes of a name that are read: no system takes more, so a longer one is not found
SLACK = 1 << 20  # bytes that a column may have beside its names
RECENT = 4096  # folders whose real paths are remembered
CLUSTER = "pip install 'fovea[cluster]'"


def arrow() -> Any:
    """Import pyarrow, with its parquet. Raise ``FoveaError``, with the command, without it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise FoveaError(f"parquet needs pyarrow: {CLUSTER}") from exc
    return pyarrow


def names_in(place: str, column: str | None = None) -> Iterator[bytes]:
    """Yield the paths and URLs that a parquet file lists; without ``column``, of a usual one.

    Relative ones are seen from the file's folder. Paths have no links in their folders, so that
    they are those of a walk, and ``file://`` URLs are paths. Rows without a value are left out.
    Raise ``FoveaError`` for what is no such file.
    """
    pa = arrow()
    folder = os.path.dirname(os.fsencode(place if is_url(place) else os.path.abspath(place)))
    real = lru_cache(RECENT)(os.path.realpath)
    try:
        with open_stream(place) as stream:
            for value in _values(pa, place, stream, column):
                yield _resolved(value, folder, real)
    except FoveaError:
        raise
    except Exception as exc:  # of as many kinds as there are stores, and of pyarrow's own
        text = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        raise FoveaError(f"cannot read {place}: {one_line(str(text))}") from exc


def _values(pa: Any, place: str, stream: IO[bytes], column: str | None) -> Iterator[bytes]:
    """Yield the values of a column, of each the first ``NAME`` bytes.

    A value of a megabyte that stands in each of a million rows is there once: the column stays a
    dictionary until its values are cut.
    """
    compute = importlib.import_module("pyarrow.compute")
    about = pa.parquet.ParquetFile(stream)
    chosen = _column(place, about.schema_arrow, column, pa)
    for number in range(about.metadata.num_row_groups):
        group = about.metadata.row_group(number)
        for part in map(group.column, range(group.num_columns)):
            most = part.num_values * (NAME + 8) + SLACK
            if part.path_in_schema == chosen and part.total_uncompressed_size > most:
                raise FoveaError(f"column {chosen} of {place} has names of more than {NAME} bytes")
    file = pa.parquet.ParquetFile(stream, metadata=about.metadata, read_dictionary=[chosen])
    for batch in file.iter_batches(batch_size=ROWS, columns=[chosen]):
        found = batch.column(0)
        if not pa.types.is_dictionary(found.type):
            found = found.dictionary_encode()
        names = found.dictionary.cast(pa.large_binary())
        names = compute.binary_slice(names, 0, NAME).take(found.indices)
        yield from filter(None, names.to_pylist())


def _resolved(name: bytes, folder: bytes, real: Callable[[bytes], bytes]) -> bytes:
    """Return a listed name in full; ``folder`` is that of the list, a path or a URL."""
    text = os.fsdecode(name)
    if not is_url(text) and not os.path.isabs(text) and is_url(os.fsdecode(folder)):
        scheme, _, top = os.fsdecode(folder).partition("://")
        text = f"{scheme}://{os.path.normpath(os.path.join(top, text))}"
    if is_url(text):
        text = normal(text)
        if is_url(text):
            return os.fsencode(text)
    above, base = os.path.split(os.path.join(folder, os.fsencode(text)))
    try:
        if base in (b"", b".", b".."):
            return real(os.path.join(above, base))
        return os.path.join(real(above), base)
    except ValueError:  # a null byte, which no system takes
        return os.path.join(above, base)


def _column(place: str, schema: Any, column: str | None, pa: Any) -> str:
    there = list(schema.names)
    for name in (column,) if column is not None else COLUMNS:
        if name in there:
            kind = schema.field(name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)
            if any(test(kind) for test in tests):
                return str(name)
            raise FoveaError(f"column {name} of {place} is {kind}, not text")
    wanted = column if column is not None else ", ".join(COLUMNS)
    named = ", ".join(one_line(name, 40) for name in there[:10])
    raise FoveaError(f"{place} has no column {wanted}; it has {named}; choose one with --column")
