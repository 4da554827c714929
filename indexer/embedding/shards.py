"""Read WebDataset shards: tars as streams, without writing any of their members to the disk.

A member's name is nothing but text. Headers and members are held to limits, whatever they declare.
The format is POSIX's ustar and pax (IEEE Std 1003.1, pax) and GNU's long names.
"""

import itertools
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from fovea.indexer.decoding.formats import extension
from fovea.indexer.decoding.limits import Limits, megabytes
from fovea.search.errors import FoveaError

from .items import PICTURES, Item
from .remote import STREAMED

__all__ = ["BrokenShard", "expand", "members"]

BLOCK = 512
HEADER = 1 << 20  # bytes of a pax header or a long name
NAME = 4096  # bytes of a name
DIGITS = 18  # of a number in a pax header
STEP = 1 << 20  # read at a time of what is left out
MOST_SHARDS = 1_000_000  # that one pattern stands for
TWICE = "another member of its shard has its name and size"
NO_END = "it ends without the blocks of zeros that end a tar, so more may be to come"
NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")


class BrokenShard(Exception):
    """A tar that cannot be read to its end; the message says why."""


def expand(pattern: str) -> list[str]:
    """Return the names that a pattern such as ``{000..999}.tar`` stands for, in order.

    As in a shell, numbers keep their zeros. Raise ``FoveaError`` for what is no such pattern.
    """
    parts: list[list[str]] = []
    end = 0
    count = 1
    for match in NUMBERS.finditer(pattern):
        first, last = match.groups()
        low, high = int(first), int(last)
        if low > high:
            raise FoveaError(f"{match.group()} in {pattern} counts down; write {{{last}..{first}}}")
        count *= high - low + 1
        if count > MOST_SHARDS:
            raise FoveaError(f"{pattern} stands for more than {MOST_SHARDS:,} shards; use several")
        width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
        parts.append([pattern[end : match.start()]])
        parts.append([str(number).zfill(width) for number in range(low, high + 1)])
        end = match.end()
    parts.append([pattern[end:]])
    if any("{" in part[0] or "}" in part[0] for part in parts[::2]):
        raise FoveaError(f"{pattern} is not a pattern of shards; write {{000..999}}")
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def members(
    shard: str, stream: IO[bytes], limits: Limits, known: frozenset[bytes] = frozenset()
) -> Iterator[Item]:
    """Yield the pictures in a tar, as they come, but for those that are ``known`` by their id.

    A member that is too large, or has the name and size of an earlier one, is yielded without its
    content, with the reason. Raise ``BrokenShard`` where the tar is none, or has no end: it ends
    within a member or without two blocks of zeros, so more may be to come.
    """
    most = min(limits.file_bytes, STREAMED)
    met: Counter[bytes] = Counter()
    for name, size, is_file in _headers(stream):
        if not is_file or extension(name.rsplit(b"/", 1)[-1]) not in PICTURES:
            _skip(stream, size)
            continue
        whole = shard.encode("utf-8", "surrogateescape") + b"/" + name
        item = Item(whole, "shard", size, shard=shard)
        again = met[item.id]
        met[item.id] += 1
        if again:  # the number makes for an id of its own
            item = replace(item, mtime_ns=again, refusal=TWICE)
        if item.id in known or item.refusal:
            _skip(stream, size)
            if item.id not in known:
                yield item
            continue
        if size > most:
            _skip(stream, size)
            reason = f"too large: {megabytes(size)}; the limit in a shard is {megabytes(most)}"
            yield replace(item, refusal=reason)
            continue
        data = _exactly(stream, size)
        _skip(stream, 0, -size % BLOCK)
        yield replace(item, data=data)


def _headers(stream: IO[bytes]) -> Iterator[tuple[bytes, int, bool]]:
    """Yield each member's name and size, and whether it is a file; its bytes are still to come."""
    name: bytes | None = None
    size: int | None = None
    is_begun = False
    while True:
        block = stream.read(BLOCK)
        if not block:
            raise BrokenShard(NO_END if is_begun else "it is empty")
        is_begun = True
        if len(block) < BLOCK:
            block += _exactly(stream, BLOCK - len(block))
        if not block.strip(b"\0"):
            _end(stream)
            return
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as exc:
            raise BrokenShard(f"no header of a tar where one should be ({exc})") from exc
        if found.size < 0:
            raise BrokenShard("a member of negative size")
        if found.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            if found.size > HEADER:
                raise BrokenShard(f"a header of {megabytes(found.size)}")
            data = _exactly(stream, found.size)
            _skip(stream, 0, -found.size % BLOCK)
            if found.type == tarfile.GNUTYPE_LONGNAME:
                name = data.rstrip(b"\0")
            else:
                fields = _pax(data)
                name = fields.get(b"path", name)
                size = _number(fields[b"size"]) if b"size" in fields else size
            continue
        is_file = found.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
        own = found.name.encode("utf-8", "surrogateescape")
        yield (
            (name or own)[:NAME].replace(b"\0", b""),
            found.size if size is None else size,
            is_file,
        )
        name = size = None


def _end(stream: IO[bytes]) -> None:
    """Read what follows the first block of zeros: another one at least, and nothing but zeros."""
    length = 0
    while part := stream.read(STEP):
        if part.strip(b"\0"):
            raise BrokenShard("zeros where a header should be, and more behind them")
        length += len(part)
    if length < BLOCK:
        raise BrokenShard(NO_END)


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Read the records "length key=value\\n" of a pax header."""
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):  # there may be as many records as fit: none is copied but by itself
        digits, _, _ = data[at : at + DIGITS + 1].partition(b" ")
        length = _number(digits)
        record = data[at + len(digits) + 1 : at + length]
        if length <= len(digits) + 1 or not record.endswith(b"\n") or b"=" not in record:
            raise BrokenShard("a pax header that is none")
        key, _, value = record[:-1].partition(b"=")
        fields[key] = value
        at += length
    return fields


def _number(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > DIGITS:
        raise BrokenShard("a pax header without its numbers")
    return int(digits)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    parts, left = [], size
    while left:
        part = stream.read(min(left, 16 * STEP))
        if not part:
            raise BrokenShard("it ends within a member")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _skip(stream: IO[bytes], size: int, padding: int | None = None) -> None:
    left = size + (-size % BLOCK if padding is None else padding)
    while left:
        part = stream.read(min(left, STEP))
        if not part:
            raise BrokenShard("it ends within a member")
        left -= len(part)
