"""Read a part: vectors in a .npy file, and a parquet file with a row for each.

Whatever such a file holds, reading it takes little memory, and raises ``FoveaError`` alone.
"""

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from fovea.indexer.decoding.limits import one_line
from fovea.search.errors import FoveaError
from fovea.search.library.paths import printable_name

__all__ = ["Part", "Row", "damage_in", "open_part", "rows_of"]

ROWS = 256  # read at a time
LONGEST = 4096  # bytes of a text; longer ones are taken for missing
HEADER = 1 << 14  # bytes of a .npy file that its header is in
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
KINDS = (np.dtype("<f2"), np.dtype("<f4"))

Row = dict[str, bytes | int | float | None]


@dataclass(frozen=True, slots=True)
class Part:
    """A part whose vectors and rows go together, as far as their headers say so."""

    vectors: Path
    metadata: Path
    rows: int
    dim: int
    kind: np.dtype
    start: int  # of the first vector, in bytes
    texts: tuple[str, ...]  # columns
    numbers: tuple[str, ...]

    @property
    def step(self) -> int:
        """Return the bytes of a vector."""
        return self.dim * self.kind.itemsize


@contextmanager
def damage_in(path: Path) -> Iterator[None]:
    """Raise ``FoveaError`` instead of whatever reading a damaged file raises."""
    try:
        yield
    except FoveaError:
        raise
    except OSError as exc:
        said = exc.strerror or one_line(str(exc)) or type(exc).__name__
        kind = "cannot be read" if exc.errno else "is damaged"  # pyarrow's have no number
        raise FoveaError(f"{printable_name(path)} {kind}: {said}") from exc
    except Exception as exc:  # NumPy, its parser and pyarrow raise of all kinds
        said = one_line(str(exc)) or type(exc).__name__
        raise FoveaError(f"{printable_name(path)} is damaged: {said}") from exc


def open_part(vectors: Path, metadata: Path, dim: int, names: tuple[str, ...], pa: Any) -> Part:
    """Read the headers of a part, whose columns ``names`` are wanted; ``pa`` is pyarrow.

    Columns of other types than text, integers and floats are left out. Raise ``FoveaError`` if
    either file is damaged or they do not go together.
    """
    with damage_in(vectors), _regular(vectors) as file:
        head = io.BytesIO(file.read(HEADER))
        version = np.lib.format.read_magic(head)
        if version not in HEADERS:
            raise ValueError(f"version {version[0]}.{version[1]} of its format is not known")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NumPy, and of Python's parser
            shape, by_column, kind = HEADERS[version](head)
        size = os.fstat(file.fileno()).st_size
    if kind not in KINDS or len(shape) != 2 or shape[1] != dim or shape[0] < 0 or by_column:
        found = one_line(f"{kind} {shape}{' by columns' if by_column else ''}", 80)
        raise FoveaError(f"{printable_name(vectors)} is {found}, not float16 or float32 (n, {dim})")
    texts, numbers, rows = [], [], -1
    with damage_in(metadata), _regular(metadata) as file:
        parquet = pa.parquet.ParquetFile(file)
        rows = parquet.metadata.num_rows
        for one in parquet.schema_arrow:
            if one.name in names and _is_text(one.type, pa):
                texts.append(one.name)
            elif one.name in names and (
                pa.types.is_integer(one.type) or one.type in (pa.float32(), pa.float64())
            ):
                numbers.append(one.name)
    if shape[0] != rows:
        raise FoveaError(
            f"{printable_name(vectors)} has {shape[0]:,} vectors, but "
            f"{printable_name(metadata.name)} {rows:,} rows"
        )
    part = Part(vectors, metadata, rows, dim, kind, head.tell(), tuple(texts), tuple(numbers))
    if size < part.start + rows * part.step:
        raise FoveaError(
            f"{printable_name(vectors)} is damaged: it ends after {size:,} bytes, before its "
            f"{rows:,} vectors do"
        )
    return part


def rows_of(part: Part, pa: Any) -> Iterator[tuple[Row, np.ndarray]]:
    """Yield the rows of a part, texts as bytes, each with its vector, float32 (d,)."""
    vectors, metadata, done = part.vectors, part.metadata, 0
    with _opened(vectors) as raw, _opened(metadata) as stream:
        with damage_in(vectors):
            raw.seek(part.start)
        with damage_in(metadata):
            # As dictionaries, a text that is repeated in all rows is in memory once.
            file = pa.parquet.ParquetFile(stream, read_dictionary=list(part.texts))
            columns = [*part.texts, *part.numbers]
            batches = file.iter_batches(batch_size=ROWS, columns=columns, use_threads=False)
        while True:
            with damage_in(metadata):
                batch = next(batches, None)
                if batch is None or done + batch.num_rows > part.rows:
                    break
                values = {
                    name: _values(column, pa)
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
            with damage_in(vectors):
                data = raw.read(batch.num_rows * part.step)
                with np.errstate(all="ignore"):
                    block = np.frombuffer(data, part.kind).astype(np.float32)
                block = block.reshape(batch.num_rows, part.dim)
            for place in range(batch.num_rows):
                yield {name: column[place] for name, column in values.items()}, block[place]
            done += batch.num_rows
    if batch is not None or done < part.rows:
        raise FoveaError(f"{printable_name(metadata)} is damaged: it has not {part.rows:,} rows")


def _opened(path: Path) -> IO[bytes]:
    with damage_in(path):
        return _regular(path)


def _regular(path: Path) -> IO[bytes]:
    """Open a file, but no pipe or device, which may never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise FoveaError(f"{printable_name(path)} is not a file")
    return path.open("rb")


def _is_text(kind: Any, pa: Any) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_binary, types.is_large_string, types.is_large_binary)
    return any(test(kind) for test in tests)


def _values(column: Any, pa: Any) -> list[Any]:
    """Return numbers as they are, and texts as bytes, whether they are UTF-8 or not."""
    if pa.types.is_dictionary(column.type):
        values: list[Any] = _short(column.dictionary, pa).take(column.indices).to_pylist()
    elif _is_text(column.type, pa):
        values = _short(column, pa).to_pylist()
    else:
        values = column.to_pylist()
    return values


def _short(texts: Any, pa: Any) -> Any:
    from pyarrow import compute  # which importing pyarrow does not bring

    is_large = pa.types.is_large_string(texts.type) or pa.types.is_large_binary(texts.type)
    plain = texts.cast(pa.large_binary() if is_large else pa.binary())
    fits = compute.less_equal(compute.binary_length(plain), LONGEST)
    return compute.if_else(fits, plain, pa.scalar(None, plain.type))
