"""Conditional requests and ranges, as RFC 9110 (2022) has them.

Werkzeug lacks If-Unmodified-Since, does not keep the order of section 13.2.2, and answers units it
does not know and several ranges with 416, where section 14.2 lets a server ignore them.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Request, Response
from werkzeug.datastructures import ContentRange, ETags
from werkzeug.exceptions import PreconditionFailed, RequestedRangeNotSatisfiable
from werkzeug.http import parse_date, parse_etags, unquote_etag
from werkzeug.sansio.request import Request as BaseRequest

__all__ = ["Conditional"]

RANGES = re.compile(r"bytes=(?P<specs>[0-9, \t-]+)", re.ASCII | re.IGNORECASE)
SPEC = re.compile(r"(?P<first>[0-9]*)-(?P<last>[0-9]*)", re.ASCII)
MOST_RANGES = 64  # in one request; more are ignored unread
MOST_DIGITS = 18  # of a position; longer numbers lie beyond every file


class Conditional(Response):
    """An answer that can be conditional, or a part of a file."""

    def make_conditional(
        self,
        request_or_environ: BaseRequest | dict[str, Any],
        accept_ranges: bool | str = False,
        complete_length: int | None = None,
    ) -> "Conditional":
        """Become 304 or 206 where the request asks for it; ``complete_length`` is in bytes.

        Several ranges and unknown units are ignored: the whole is sent. Raise
        ``PreconditionFailed``, or ``RequestedRangeNotSatisfiable`` where no range is in the file.
        """
        environ: Any = getattr(request_or_environ, "environ", request_or_environ)
        asked = Request(environ)
        if asked.method not in ("GET", "HEAD"):
            return self
        if not _may_proceed(self, asked):
            self.close()
            raise PreconditionFailed("the file has changed, or is not the one that was asked for")
        if accept_ranges:
            self.headers["Accept-Ranges"] = "bytes"
        if _is_known(self, asked):
            self.status_code = 304
        elif accept_ranges and complete_length is not None and _wants_part(self, asked):
            self._cut(asked.headers["Range"], complete_length)
        return self

    def _cut(self, wanted: str, size: int) -> None:
        """Become one range, if one is asked for. Raise ``RequestedRangeNotSatisfiable``."""
        found = _satisfiable(wanted, size)
        if found is None:
            return
        if not found:
            self.close()
            raise RequestedRangeNotSatisfiable(size)
        if len(found) == 1 and size:
            [(start, stop)] = found
            self.status_code = 206
            self.content_range = ContentRange("bytes", start, stop, size)
            self.content_length = stop - start
            self._wrap_range_response(start, stop - start)


def _may_proceed(response: Response, asked: Request) -> bool:
    """Steps 1 and 2: If-Match, by strong comparison, else If-Unmodified-Since."""
    if wanted := _tags(asked, "If-Match"):
        tag, is_weak = response.get_etag()
        return wanted.star_tag or (tag is not None and not is_weak and wanted.is_strong(tag))
    limit, modified = _date(asked, "If-Unmodified-Since"), response.last_modified
    return limit is None or modified is None or modified <= limit


def _is_known(response: Response, asked: Request) -> bool:
    """Steps 3 and 4: If-None-Match, by weak comparison, else If-Modified-Since."""
    if wanted := _tags(asked, "If-None-Match"):
        tag, _ = response.get_etag()
        return wanted.star_tag or (tag is not None and wanted.contains_weak(tag))
    since, modified = _date(asked, "If-Modified-Since"), response.last_modified
    return since is not None and modified is not None and modified <= since


def _wants_part(response: Response, asked: Request) -> bool:
    """Step 5: a Range, and its If-Range, if any, names exactly what would be sent."""
    if asked.method != "GET" or "Range" not in asked.headers or response.status_code != 200:
        return False
    condition = asked.headers.get("If-Range")
    if condition is None:
        return True
    tag, is_weak = response.get_etag()
    if condition.strip().endswith('"'):
        wanted, wants_weak = unquote_etag(condition)
        return wanted == tag and not (wants_weak or is_weak)
    date = parse_date(condition)
    return date is not None and date == response.last_modified and _is_strong(date)


def _is_strong(modified: datetime) -> bool:
    """Say whether nothing can change any more within that second (section 8.8.2.2)."""
    return modified + timedelta(seconds=1) <= datetime.now(UTC)


def _tags(asked: Request, name: str) -> ETags | None:
    """Return the entity tags in a header, None without any."""
    found = parse_etags(asked.headers.get(name))
    return found if found.star_tag or len(found.as_set(include_weak=True)) else None


def _date(asked: Request, name: str) -> datetime | None:
    return parse_date(asked.headers.get(name))


def _satisfiable(wanted: str, size: int) -> list[tuple[int, int]] | None:
    """Return (start, stop) of the ranges that lie in ``size`` bytes; None if they are ignored.

    Those are ignored that are of another unit, malformed, or too many (section 14.2).
    """
    found = RANGES.fullmatch(wanted.strip())
    if not found or found["specs"].count(",") >= MOST_RANGES:
        return None
    specs = [SPEC.fullmatch(text) for text in map(str.strip, found["specs"].split(",")) if text]
    ranges = []
    for spec in specs:
        if spec is None or spec[0] == "-":
            return None
        first, last = _position(spec["first"]), _position(spec["last"])
        if first is None:  # the last bytes
            if last:
                ranges.append((max(size - last, 0), size))
        elif last is not None and last < first:
            return None
        elif first < size:
            ranges.append((first, size if last is None else min(last + 1, size)))
    return ranges if specs else None


def _position(digits: str) -> int | None:
    """Read a position; None for none, and a large number for one that no file reaches."""
    if len(digits.lstrip("0")) > MOST_DIGITS:
        return int(10**MOST_DIGITS)
    return int(digits.lstrip("0") or 0) if digits else None
