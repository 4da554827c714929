"""Dates: which are plausible, what a file's name says, and which one a picture is shown under.

A date is ISO 8601 local time, and as long as it is sure: ``2017-03-05T07:08:09``, ``2017-03-05``
without the time, ``2017-03`` or ``2017`` where no day is known. So it sorts as text, and a shorter
one is the beginning of every date that it may stand for.
"""

import os
import re
import unicodedata
from datetime import date, time, timedelta

from .stamps import EARLIEST as EARLIEST_NS
from .stamps import LATEST as LATEST_NS

__all__ = [
    "DATE",
    "DATE_SOURCE",
    "FILE_NAME",
    "FILE_TIME",
    "MODIFIED",
    "NAMED",
    "OLDEST",
    "day_first",
    "is_plausible",
    "is_sharper",
    "named_date",
    "oldest",
    "sure_day",
    "sure_time",
]

EARLIEST = 1826  # the year of the oldest photograph that is left
EARLIEST_NAMED = 1900  # in a name, smaller numbers are rarely years
WRITTEN = date(2026, 11, 1)  # a clock that is behind this program is wrong, and says nothing

# Where the date of ``shown`` comes from, if no tag of the picture says it.
FILE_NAME, FILE_TIME = "file name", "file time"
UNNAMED_TAG = "Exif"  # read before tags were recorded


def is_plausible(text: str, earliest: int = EARLIEST) -> bool:
    """Say whether a photograph can be from that date: not too early, and not in the future.

    Tomorrow passes, since it has begun elsewhere.
    """
    latest = max(date.today() + timedelta(days=1), WRITTEN).isoformat()
    return int(text[:4]) >= earliest and text[:10] <= latest[: len(text)]


def is_sharper(text: str, other: str) -> bool:
    """Say whether a date agrees with another, shorter one and says more."""
    return len(text) > len(other) and text.startswith(other)


def sure_day(year: int, month: int, day: int) -> str | None:
    """Return a day of the calendar in ISO 8601; None for what is none."""
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return None


def sure_time(hour: int, minute: int, second: int) -> str:
    """Return what follows the day: ``T07:08:09``; an empty text if the time is not sure.

    Hour 24 is not: some write it for the beginning of the day, others for its end. Second 60 is a
    leap second; others that do not exist are left out.
    """
    if hour > 23 or minute > 59:
        return ""
    second = 59 if second == 60 else second if second < 60 else 0
    return f"T{time(hour, minute, second).isoformat()}"


def day_first(first: int, second: int, year: int) -> str | None:
    """Return the day of ``14/07/2019`` or ``07/14/2019``; None where both orders make one."""
    found = {sure_day(year, second, first), sure_day(year, first, second)} - {None}
    return found.pop() if len(found) == 1 else None


# Names. Digits that go on are an identifier's, and so are those among letters and digits.

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_YEAR = re.compile(r"19[0-9]{2}|20[0-9]{2}")
_HASH = re.compile(r"(?<![0-9a-f])(?=[0-9]*[a-f])[0-9a-f]{12,}", re.IGNORECASE)
_CLOCK = r"(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})(?P<second>[0-9]{2})(?:[0-9]{3})?(?![0-9])"
_NOT_INSIDE = r"(?<![0-9])(?<![0-9][.,:])"
_COMPACT = re.compile(
    r"(?<![^\W_])[^\W\d_]*(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})"
    rf"(?:(?P<between>[-_.T ]?){_CLOCK}|(?![0-9]))(?![^\W\d_]*[0-9])"
)
_SEPARATED = re.compile(
    _NOT_INSIDE + r"(?P<year>[0-9]{4})(?P<separator>[-_. ])(?P<month>[0-9]{2})(?P=separator)"
    r"(?P<day>[0-9]{2})(?![0-9])"
)
_EAST_ASIAN = re.compile(
    _NOT_INSIDE + r"(?P<year>[0-9]{4})\s?[年년]\s?(?P<month>[0-9]{1,2})\s?[月월]\s?"
    r"(?P<day>[0-9]{1,2})\s?[日일]"
)
_DAY_FIRST = re.compile(
    _NOT_INSIDE + r"(?P<first>[0-9]{2})(?P<separator>[-_. ])(?P<second>[0-9]{2})(?P=separator)"
    r"(?P<year>[0-9]{4})(?![0-9]|[.,:][0-9]{3})"
)
_THEN = r"(?:[-_ T.,@]+|\s+[^\W\d_]{1,4}\.?\s+)"  # "2019-07-14 at 10.15.00"
_TIMES = (
    re.compile(_THEN + _CLOCK),
    re.compile(
        rf"{_THEN}(?P<hour>[0-9]{{1,2}})(?P<colon>[-_.:\uff1a\ua789\u2236 ])(?P<minute>[0-9]{{2}})"
        r"(?P=colon)(?P<second>[0-9]{2})(?![0-9])(?:\s?(?P<half>[AaPp])\.?[Mm](?![^\W\d_]))?"
    ),
)


def named_date(path: bytes | str) -> str | None:
    """Return the date in a file's name, with the time if it is there; None if no day is sure.

    A camera's or a program's names: ``IMG_20190714_101500.jpg``, ``2019-07-14 10.15.00.png``,
    ``IMG-20190714-WA0001.jpg``. Not longer numbers, hashes, days that do not exist or are in the
    future, ``05-07-2019``, which is two days, and names with several days.
    """
    name = os.path.splitext(os.path.basename(os.fsdecode(path)))[0][:255]
    if not _YEAR.search(name):
        return None  # as most names do, so that a million are soon read
    name = _HASH.sub("#", _UUID.sub("#", unicodedata.normalize("NFC", name)))
    found = [_compact(match) for match in _COMPACT.finditer(name)]
    for pattern in (_SEPARATED, _EAST_ASIAN, _DAY_FIRST):
        for match in pattern.finditer(name):
            if day := _day(match.groupdict()):
                found.append(day + _time_at(name, match.end()))
    sure = [date for date in found if date and is_plausible(date, EARLIEST_NAMED)]
    return max(sure, key=len) if len({date[:10] for date in sure}) == 1 else None


def _compact(match: re.Match[str]) -> str | None:
    day = _day(match.groupdict())
    clock = _clock(match) if match["hour"] else _time_at(match.string, match.end())
    if not clock and match["between"] == "":
        return None  # fourteen digits that are no time are no date either
    return day and day + clock


def _day(parts: dict[str, str | None]) -> str | None:
    year = int(parts["year"] or 0)
    if "first" in parts:
        return day_first(int(parts["first"] or 0), int(parts["second"] or 0), year)
    return sure_day(year, int(parts["month"] or 0), int(parts["day"] or 0))


def _time_at(name: str, place: int) -> str:
    found = next(filter(None, (pattern.match(name, place) for pattern in _TIMES)), None)
    return _clock(found) if found else ""


def _clock(match: re.Match[str]) -> str:
    """Return the time, or an empty text: a number that is no time may be a counter."""
    hour, minute, second = (int(match[part]) for part in ("hour", "minute", "second"))
    if half := match.groupdict().get("half"):
        hour = hour % 12 + (12 if half in "Pp" else 0) if 1 <= hour <= 12 else 99
    return sure_time(hour, minute, second) if second < 60 else ""


# SQL. A picture's date is its tag's, ``taken_at``; if that is missing, or not exact, the one in a
# file's name that agrees with it and says more; if neither is known, the time of the oldest file.

# Of ``mtime_ns``; the second that has begun, before 1970 too, where division would round up.
MODIFIED = (
    "strftime('%Y-%m-%dT%H:%M:%S', {0} / 1000000000 - ({0} % 1000000000 < 0), "
    "'unixepoch', 'localtime')"
)
# Of the rows of ``files`` that show an image: the earliest day in a name, since copies are named
# later, and the earliest time of that day. "~" sorts after every time.
NAMED = "rtrim(min(CASE length(named_at) WHEN 10 THEN named_at || '~' ELSE named_at END), '~')"
# A time that is out of range (``stamps``) does not count.
OLDEST = f"min(CASE WHEN mtime_ns > {EARLIEST_NS} AND mtime_ns < {LATEST_NS} THEN mtime_ns END)"
_BY_NAME = (
    "coalesce(length(taken_at), 0) < 19 AND length(named) > coalesce(length(taken_at), 0) "
    "AND substr(named, 1, coalesce(length(taken_at), 0)) = coalesce(taken_at, '')"
)
# Of rows with the columns taken_at, dated_by, named and oldest:
DATE = f"CASE WHEN {_BY_NAME} THEN named ELSE coalesce(taken_at, {MODIFIED.format('oldest')}) END"
DATE_SOURCE = (
    f"CASE WHEN {_BY_NAME} THEN '{FILE_NAME}' "
    f"WHEN taken_at IS NOT NULL THEN coalesce(dated_by, '{UNNAMED_TAG}') "
    f"WHEN {MODIFIED.format('oldest')} IS NOT NULL THEN '{FILE_TIME}' END"
)


def oldest(condition: str) -> str:
    """Return SQL for when the oldest of some files was modified, as ISO 8601 local time.

    ``condition`` chooses the files. Times out of range do not count; NULL if there is none other.
    """
    return (
        f"SELECT {MODIFIED.format('oldest')} "
        f"FROM (SELECT {OLDEST} AS oldest FROM files WHERE {condition})"
    )
