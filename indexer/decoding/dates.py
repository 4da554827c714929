"""When a photograph was taken: what is sure of the dates in its tags.

``parse_date`` reads one of them, in whichever of many spellings; ``date_taken`` chooses.
"""

import re
import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from fovea.search.library.facts.dates import (
    day_first,
    is_plausible,
    is_sharper,
    sure_day,
    sure_time,
)

from .tags import Tags, as_bytes, finite, get

__all__ = ["TAGS", "Found", "date_taken", "parse_date"]

# Exif 2.32, sections 4.6.4 to 4.6.6; XMP: ISO 16684-1 and -2; IPTC-IIM 4.2, section 6
_CHANGED = 0x0132
_OFFSETS = (0x9011, 0x9012, 0x9010)  # from UTC: when taken, digitised, changed
_GPS_TIME, _GPS_DATE = 7, 29
_EPOCH = "1980-01-06"  # what receivers say before they know
_EXIF = "{http://ns.adobe.com/exif/1.0/}"
_XMP = "{http://ns.adobe.com/xap/1.0/}"
_TIFF = "{http://ns.adobe.com/tiff/1.0/}"
_PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"

LONGEST = 100  # characters read of a date


class Found(NamedTuple):
    """A date in ISO 8601, as long as it is sure, and the tag that it is from."""

    date: str
    tag: str


def date_taken(tags: Tags) -> Found | None:
    """Return the date of the best tag that says one.

    They are tried in this order: when the picture was taken, digitised, changed, then GPS. A date
    without a day is kept unless a tag of the first two kinds agrees and says more; one whose day
    does not exist, as the 31st of April, or may be two, as 4/5/2019, is the last resort.
    """
    kept: Found | None = None
    last: Found | None = None
    for tag, (value, is_own) in TAGS.items():
        read = _read(value(tags))
        if read is None or not is_plausible(read.date):
            continue
        if read.is_broken:
            last = last or Found(read.date, tag)
        elif kept is None:
            kept = Found(read.date, tag)
        elif is_own and is_sharper(read.date, kept.date):
            kept = Found(read.date, tag)
        if kept is not None and (len(kept.date) >= 10 or not is_own):
            break
    return kept or last


def _iptc(tags: Tags, day: tuple[int, int], time: tuple[int, int]) -> str | None:
    found = tags.iptc.get(day)
    return f"{found} {tags.iptc.get(time, '')}" if found else None


def _gps(tags: Tags) -> str | None:
    """Return the satellites' time: local time where a tag has its offset from UTC, else UTC."""
    day = _read(get(tags.gps, _GPS_DATE))
    if day is None or day.is_broken or len(day.date) < 10 or day.date[:10] == _EPOCH:
        return None
    parts = get(tags.gps, _GPS_TIME)
    numbers = [finite(part) for part in parts] if isinstance(parts, tuple | list) else []
    if len(numbers) != 3 or any(number is None or not 0 <= number < 100 for number in numbers):
        return day.date
    clock = sure_time(*(int(number) for number in numbers if number is not None))
    if not clock:
        return day.date[:10]
    moment = f"{day.date[:10]}{clock}"
    for tag in _OFFSETS:
        offset = re.fullmatch(r"([+-])(\d\d):?(\d\d)", _plain(get(tags.details, tag)))
        if offset and int(offset[2]) < 15 and int(offset[3]) < 60:
            ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
            try:
                here = datetime.fromisoformat(moment) + (ahead if offset[1] == "+" else -ahead)
            except OverflowError:
                break
            return here.isoformat()
    return moment


def _exif(tag: int) -> Callable[[Tags], Any]:
    """Read a tag from the directory where it belongs, or else from the other one."""
    first, second = ("main", "details") if tag == _CHANGED else ("details", "main")
    return lambda tags: get(getattr(tags, first), tag) or get(getattr(tags, second), tag)


def _xmp(name: str) -> Callable[[Tags], Any]:
    return lambda tags: tags.xmp.get(name)


def _png(*keywords: str) -> Callable[[Tags], Any]:
    return lambda tags: next(filter(None, map(tags.png.get, keywords)), None)


# By name, the best first: how to read each, and whether it says when the picture came to be, not
# only when it was changed.
TAGS: dict[str, tuple[Callable[[Tags], Any], bool]] = {
    "DateTimeOriginal": (_exif(0x9003), True),
    "XMP DateTimeOriginal": (_xmp(f"{_EXIF}DateTimeOriginal"), True),
    "XMP DateCreated": (_xmp(f"{_PHOTOSHOP}DateCreated"), True),
    "IPTC DateCreated": (lambda tags: _iptc(tags, (2, 55), (2, 60)), True),
    "PNG Creation Time": (_png("creation time", "creationtime"), True),
    "DateTimeDigitized": (_exif(0x9004), True),
    "XMP DateTimeDigitized": (_xmp(f"{_EXIF}DateTimeDigitized"), True),
    "XMP CreateDate": (_xmp(f"{_XMP}CreateDate"), True),
    "IPTC DigitalCreationDate": (lambda tags: _iptc(tags, (2, 62), (2, 63)), True),
    "DateTime": (_exif(_CHANGED), False),
    "XMP DateTime": (_xmp(f"{_TIFF}DateTime"), False),
    "XMP ModifyDate": (_xmp(f"{_XMP}ModifyDate"), False),
    "PNG tIME": (_png("time"), False),
    "PNG date": (_png("date", "date:create", "date:modify"), False),
    "GPSDateStamp": (_gps, False),
    "XMP GPSTimeStamp": (_xmp(f"{_EXIF}GPSTimeStamp"), False),
}


# One date


class _Read(NamedTuple):
    date: str
    is_broken: bool = False  # what the text says next does not exist, or is not sure


# Before and after noon in English, Spanish, Chinese, Korean, Japanese, Greek, Turkish, Arabic,
# Persian, Ukrainian and Vietnamese
_AM = (
    "am", "a.m", "a. m", "上午", "凌晨", "早上", "清晨", "오전", "午前", "πμ", "π.μ", "öö", "ص",
    "ق.ظ", "дп", "sa",
)  # fmt: skip
_PM = (
    "pm", "p.m", "p. m", "下午", "晚上", "오후", "午後", "μμ", "μ.μ", "ös", "م", "ب.ظ", "пп", "ch",
)  # fmt: skip
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_HALF = "|".join(re.escape(word) for word in sorted(_AM + _PM, key=len, reverse=True))
_HALF = rf"(?:(?P<{{}}>{_HALF})\.?(?![^\W\d_]))"
_BETWEEN = r"\s?[:\-/._]\s?"
_ORDERED = re.compile(
    rf"(?P<year>\d{{4}})(?:{_BETWEEN}|\s?[年년]\s?|\s)"
    rf"(?P<month>\d{{1,2}})(?P<gap>{_BETWEEN}|\s?[月월]\s?|\s)"
    r"(?:(?P<day>\d{1,2})(?!\d)|(?P<glued>\d\d)(?=\d\d:\d\d))"
)
_COMPACT = re.compile(r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)(?!\d)")
_RUN = re.compile(r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)(?P<clock>\d{6})(?!\d)")
_PARTIAL = (
    re.compile(  # 2017, 2017-03, 2017:03:   07:08:09
        rf"(?P<year>\d{{4}})(?:(?:{_BETWEEN}|\s?[年년]\s?)(?P<month>\d{{1,2}}))?"
        r"[\s:\-/._年년月월]*(?:(?<=[:\s]\s)\d\d?:\d\d.*)?",
        re.DOTALL,
    ),
    re.compile(r"(?P<year>\d{4}):\s*:.*", re.DOTALL),  # 2017:  :05
)
_WHOLE = re.compile(r":\s?\d{1,2}(?:[:.]\s?\d{1,2}){2}")
_DAY_FIRST = re.compile(r"(\d{1,2})([:\-/. ])(\d{1,2})\2(\d{4})(?!\d)")
_WEEKDAY = r"(?:[a-z]{3,9}\.?,?\s+)?"
_NAMED = (
    re.compile(  # 5 Mar 2017 07:08:09
        _WEEKDAY + r"(?P<day>\d{1,2})[\s\-.]+(?P<name>[a-z]{3,9})\.?,?[\s\-]+(?P<year>\d{4})(?!\d)"
    ),
    re.compile(  # March 5, 2017 07:08:09
        _WEEKDAY + r"(?P<name>[a-z]{3,9})\.?\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?,?\s+"
        r"(?P<year>\d{4})(?!\d)"
    ),
    re.compile(  # Sun Mar  5 07:08:09 CET 2017
        _WEEKDAY + r"(?P<name>[a-z]{3,9})\s+(?P<day>\d{1,2})\s+(?P<time>\d\d?:\d\d(?::\d\d)?)\s+"
        r"(?:[a-z0-9:+]{1,6}\s+)?(?P<year>\d{4})(?!\d)"
    ),
)
_TIME = re.compile(
    rf"(?P<between>[\sT:\-/._,日일]*){_HALF.format('before')}?\s?"
    r"(?P<hour>\d{1,2})(?P<colon>\s?[:.\-_h時时시]\s?|\s)(?P<minute>\d{1,2})(?!\d)"
    r"(?:(?:(?P=colon)|\s?[:.\-_m分분]\s?)(?P<second>\d{1,2})(?!\d))?"
    rf"(?:[.,]\d*)?\s*(?:[s秒초]\s*)?{_HALF.format('after')}?(?P<junk>.*)",
    re.DOTALL | re.IGNORECASE,
)
_NEGATIVE = re.compile(r"[\sT:\-/._,日일]+-\d")  # not a separator: 2017:03:05 -1:00:00
_TIME_COMPACT = re.compile(r"[\sT\-_]*(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?!\d)")


def parse_date(value: Any) -> str | None:
    """Read a date in any of the spellings that cameras and programs use; None where there is none.

    Missing, padded and unpadded parts, other separators, names of months, morning and afternoon in
    several languages, zones (left out: what is written is local time), and whatever may follow.
    """
    found = _read(value)
    return None if found is None else found.date


def _read(value: Any) -> _Read | None:
    text = _plain(value)
    for pattern in (_ORDERED, _RUN, _COMPACT):
        if found := pattern.match(text):
            parts = found.groupdict()
            year, month = int(parts["year"]), int(parts["month"])
            day = int(parts["day"] or parts["glued"])
            rest = parts.get("clock") or text[found.end() :]
            rest = f" {rest}" if parts.get("glued") else rest
            if parts.get("gap", "").strip() != parts.get("gap", ""):
                # 2017:03: 07:08:09 lacks the day, not the hour; 2017: 3: 5:07:08:09 lacks nothing.
                is_hour = rest.startswith(":") and not _WHOLE.match(rest)
                day = 0 if is_hour and parts["gap"].strip() else day
            if pattern is not _ORDERED and (month > 12 or day > 31):
                return None  # some other number
            return _day(year, month, day, rest)
    for pattern in _PARTIAL:
        if found := pattern.fullmatch(text):
            return _day(int(found["year"]), int(found.groupdict().get("month") or 0), 0, "")
    return _read_others(text)


def _read_others(text: str) -> _Read | None:
    """Read dates that begin with the day or with the name of a month."""
    if found := _DAY_FIRST.match(text):
        first, second, year = int(found[1]), int(found[3]), int(found[4])
        # With full stops the day comes first, wherever people write so.
        day = sure_day(year, second, first) if found[2] == "." else None
        day = day or day_first(first, second, year)
        if day is None:
            return _Read(_shortened(year, 0), is_broken=True) if year else None
        return _Read(day + _clock(text[found.end() :]))
    lower = text.lower()
    for pattern in _NAMED:
        found = pattern.match(lower)
        if found and found["name"][:3] in _MONTHS:
            rest = f" {found['time']}" if "time" in found.groupdict() else lower[found.end() :]
            month = _MONTHS.index(found["name"][:3]) + 1
            return _day(int(found["year"]), month, int(found["day"]), rest)
    return None


def _day(year: int, month: int, day: int, rest: str) -> _Read | None:
    """Return a date from its numbers: zeros stand for what is not known."""
    if year == 0:
        return None
    if month > 12:
        return _Read(_shortened(year, 0), is_broken=True)
    if month == 0 or day == 0:
        return _Read(_shortened(year, month))
    found = sure_day(year, month, day)
    if found is None:
        return _Read(_shortened(year, month), is_broken=True)
    return _Read(found + _clock(rest))


def _shortened(year: int, month: int) -> str:
    return f"{year:04}-{month:02}" if month else f"{year:04}"


def _clock(text: str) -> str:
    """Read the time that follows a day, in ISO 8601; an empty text if it is not sure."""
    found: re.Match[str] | None
    if _NEGATIVE.match(text):
        return ""
    if found := _TIME_COMPACT.match(text):
        return sure_time(*(int(found[part]) for part in ("hour", "minute", "second")))
    found = _TIME.match(text)
    if not found or (not found["between"] and not found["before"]):
        return ""
    if found["second"] is None and found["between"].strip() == "-":
        return ""  # that is a zone: 2017-03-05-07:00
    hour = int(found["hour"])
    if half := (found["before"] or found["after"] or "").lower():
        is_late = half in _PM
        if hour > 12:
            hour = hour if is_late else 99
        else:
            hour = hour % 12 + 12 * is_late
    elif 1 <= hour <= 12 and found["junk"][:1].isalpha() and found["junk"] > "\u0100":
        return ""  # perhaps the afternoon, in a language that is not known here
    return sure_time(hour, int(found["minute"]), int(found["second"] or 0))


def _plain(value: Any) -> str:
    """Return a text with digits of ASCII, spaces for what cannot be printed, and none around it."""
    text = value if isinstance(value, str) else as_bytes(value).decode("latin-1")
    text = text.lstrip("\0")
    text = text[::2] if text[1:4:2] == "\0\0" else text  # UTF-16
    text = unicodedata.normalize("NFKC", _unscrambled(text[:LONGEST]))
    text = "".join(
        str(unicodedata.decimal(c)) if c.isdecimal() else c if c.isprintable() else " "
        for c in text
    )
    return text.strip(" \"'")


def _unscrambled(text: str) -> str:
    """Undo that Pillow reads Exif as Latin-1, where cameras write UTF-8 or their system's own."""
    if text.isascii():
        return text
    try:
        data = text.encode("latin-1")
    except UnicodeEncodeError:
        return text
    for encoding in ("utf-8", "gb18030"):
        try:
            found = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8" or any(word in found for word in (*_AM, *_PM) if word > "\u4e00"):
            return found
    return text
