"""Dates as people say them, in English and Chinese: "july 2019", "last summer", 去年, 2019年7月.

A phrase may be unfinished: "jul" and "last s" are read as what they may become. What comes out are
days, from the first to the last; ``filters_of`` writes them as the filters of the query language.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from fovea.search.library.facts.folded import fold, words
from fovea.search.query.filters import Filter

__all__ = ["Calendar", "Span", "filters_of", "is_date", "spans", "written"]

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "winter": 12, "fall": 9}  # their first months
SHORTEST = 3  # characters of a word that is not finished
FIRST_YEAR = 1826  # of the oldest photograph that is left
NUMBER = re.compile(r"[0-9]+")
ORDINAL = re.compile(r"([0-9]{1,2})(?:st|nd|rd|th)?")
DECADE = re.compile(r"(1[89]|20)?([0-9])0s")
DAY = timedelta(days=1)

# Chinese; traditional characters are read as the simplified ones.
SIMPLIFIED = str.maketrans("個這聖誕節週號", "个这圣诞节周号")
CHINESE_SEASONS = {"春": 3, "夏": 6, "秋": 9, "冬": 12}
CHINESE_MONTHS = dict(
    zip(
        "一月 二月 三月 四月 五月 六月 七月 八月 九月 十月 十一月 十二月".split(),
        range(1, 13),
        strict=True,
    )
)
CHINESE_YEARS = {"今年": 0, "去年": 1, "前年": 2}
CHINESE_DATE = re.compile(r"([0-9]{4})年(?:([0-9]{1,2})(?:月(?:([0-9]{1,2})[日号]?)?)?)?")
CHINESE_DAY = re.compile(r"([0-9]{1,2})月(?:([0-9]{1,2})[日号]?)?")
CHINESE_SEASON = re.compile(r"(今年|去年|前年|[0-9]{4}年?)?([春夏秋冬])[天季]?")
CHINESE_CHRISTMAS = re.compile(r"(今年|去年|前年|[0-9]{4}年?)?圣诞节?")


@dataclass(frozen=True, slots=True)
class Calendar:
    """What a phrase is read by: the day that it is, and of when there are pictures."""

    today: date
    months: frozenset[tuple[int, int]] = frozenset()  # (year, month) in which pictures were taken
    is_south: bool = False  # of the equator, where summer is from December to February

    @property
    def years(self) -> list[int]:
        """The years with pictures, the newest first."""
        return sorted({year for year, _ in self.months}, reverse=True)


@dataclass(frozen=True, slots=True)
class Span:
    """Days, from the first to the last, and what they are called."""

    label: str
    first: date
    last: date


def spans(phrase: str, calendar: Calendar) -> list[Span]:
    """Return what a phrase, or the beginning of one, may mean; the likeliest first.

    Where a year is missing, those with pictures come, the newest first.
    """
    text = "".join(fold(phrase).split()).translate(SIMPLIFIED)
    found = list(_chinese(text, calendar)) if not text.isascii() else []
    tokens = words(phrase)
    if tokens and not found and all(token.isascii() for token in tokens):
        found = [*_relative(tokens, calendar), *_absolute(tokens, calendar)]
    return list({(span.first, span.last): span for span in reversed(found)}.values())[::-1]


def is_date(phrase: str, calendar: Calendar) -> bool:
    """Whether a phrase of several words is a whole date: "last summer", but not "last s"."""
    said = words(phrase)
    return len(said) > 1 and any(words(span.label) == said for span in spans(phrase, calendar))


def filters_of(span: Span, key: str = "on", negated: bool = False) -> tuple[Filter, ...]:
    """Write a span as one ``on:``, for a year, month or day, else as ``after:`` and ``before:``.

    With the key ``after`` or ``before``, what lies beyond its end or before its beginning. Empty
    where that cannot be said by filters: the outside of a span that needs two.
    """
    if key in ("after", "before"):
        edge = _until(span.last) if key == "after" else _from(span.first)
        return (Filter(key, edge, negated),)
    if whole := _whole(span):
        return (Filter("on", whole, negated),)
    if negated:
        return ()
    return (
        Filter("after", _until(span.first - DAY)),
        Filter("before", _from(span.last + DAY)),
    )


def written(span: Span) -> str:
    """Write a span in ISO 8601: 2019-07, or 2019-06 – 2019-08."""
    ends = _from(span.first), _until(span.last)
    if len(ends[0]) != len(ends[1]):
        length = 10 if 10 in map(len, ends) else 7
        ends = span.first.isoformat()[:length], span.last.isoformat()[:length]
    return _whole(span) or " – ".join(ends)


def _whole(span: Span) -> str:
    """Return a year, month or day in ISO 8601; "" for any other span."""
    first, last = span.first.isoformat(), span.last.isoformat()
    if first == last:
        return first
    is_of_months = span.first.day == 1 and (span.last + DAY).day == 1
    if is_of_months and first[:7] == last[:7]:
        return first[:7]
    return first[:4] if _from(span.first) == _until(span.last) == first[:4] else ""


def _from(day: date) -> str:
    """The year or month that begins on a day, or the day itself."""
    return day.isoformat()[: 4 if (day.month, day.day) == (1, 1) else 7 if day.day == 1 else 10]


def _until(day: date) -> str:
    """The year or month that ends on a day, or the day itself."""
    return day.isoformat()[: len(_from(day + DAY))]


# Spans


def _day(label: str, day: date) -> Span:
    return Span(label, day, day)


def _month(label: str, year: int, month: int, count: int = 1) -> Span:
    """Months from one on; a month beyond December is one of a later year."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    end = month - 1 + count
    return Span(label, date(year, month, 1), date(year + end // 12, end % 12 + 1, 1) - DAY)


def _year(label: str, year: int) -> Span:
    return Span(label, date(year, 1, 1), date(year, 12, 31))


def _week(label: str, day: date) -> Span:
    monday = day - DAY * day.weekday()
    return Span(label, monday, monday + DAY * 6)


def _season(label: str, year: int, month: int, calendar: Calendar) -> Span:
    """A season as meteorologists count it; winter has the year of its December, north and south.

    In the south, the same months are another season.
    """
    if calendar.is_south:
        month = (month + 5) % 12 + 1
    return _month(label, year, month, 3)


def _last_season(label: str, month: int, calendar: Calendar) -> Span:
    """The latest one that is over."""
    year = calendar.today.year
    while (span := _season(label, year, month, calendar)).last >= calendar.today:
        year -= 1
    return span


def _christmas(label: str, year: int) -> Span:
    return Span(label, date(year, 12, 24), date(year, 12, 26))


def _is_year(year: int) -> bool:
    return FIRST_YEAR <= year <= 9998


# English


def _relative(tokens: Sequence[str], calendar: Calendar) -> Iterator[Span]:
    """Read what is told from today: "yesterday", "last month", "3 years ago"."""
    today = calendar.today
    if len(tokens[0]) >= SHORTEST:
        for phrase, make in _PHRASES:
            if _begins(phrase.split(), tokens):
                yield make(phrase, calendar)
    if len(tokens) >= 2 and NUMBER.fullmatch(tokens[0]) and len(tokens[0]) <= 3:
        number = int(tokens[0])
        for unit, make_ago in _AGO.items():
            said = f"{unit}s" if number != 1 else unit
            if _begins([tokens[0], said, "ago"], tokens) and today.year - number >= FIRST_YEAR:
                yield make_ago(f"{number} {said} ago", today, number)


def _begins(whole: Sequence[str], tokens: Sequence[str]) -> bool:
    """Whether the tokens are the beginning of a phrase; the last one may be unfinished."""
    *ready, last = tokens
    return (
        len(tokens) <= len(whole)
        and list(whole[: len(ready)]) == ready
        and whole[len(ready)].startswith(last)
    )


_AGO: dict[str, Callable[[str, date, int], Span]] = {
    "day": lambda label, today, n: _day(label, today - DAY * n),
    "week": lambda label, today, n: _week(label, today - DAY * 7 * n),
    "month": lambda label, today, n: _month(label, today.year, today.month - n),
    "year": lambda label, today, n: _year(label, today.year - n),
}

_Make = Callable[[str, Calendar], Span]


def _last_days(label: str, today: date, count: int) -> Span:
    return Span(label, today - DAY * (count - 1), today)


_PHRASES: list[tuple[str, _Make]] = [
    ("today", lambda label, c: _day(label, c.today)),
    ("yesterday", lambda label, c: _day(label, c.today - DAY)),
    ("this week", lambda label, c: _week(label, c.today)),
    ("last week", lambda label, c: _week(label, c.today - DAY * 7)),
    ("this month", lambda label, c: _month(label, c.today.year, c.today.month)),
    ("last month", lambda label, c: _month(label, c.today.year, c.today.month - 1)),
    ("this year", lambda label, c: _year(label, c.today.year)),
    ("last year", lambda label, c: _year(label, c.today.year - 1)),
    (
        "last weekend",
        lambda label, c: Span(
            label,
            c.today - DAY * (c.today.weekday() + 2),
            c.today - DAY * (c.today.weekday() + 1),
        ),
    ),
    ("last 7 days", lambda label, c: _last_days(label, c.today, 7)),
    ("last 30 days", lambda label, c: _last_days(label, c.today, 30)),
]


def _of_season(when: str, name: str) -> tuple[str, _Make]:
    month = SEASONS[name]
    if when == "this":
        return f"this {name}", lambda label, c: _season(label, c.today.year, month, c)
    return f"last {name}", lambda label, c: _last_season(label, month, c)


_PHRASES += [_of_season(when, name) for name in SEASONS for when in ("last", "this")]
_PHRASES.append(
    (
        "last christmas",
        lambda label, c: _christmas(label, c.today.year - (c.today <= date(c.today.year, 12, 26))),
    )
)


def _absolute(tokens: Sequence[str], calendar: Calendar) -> Iterator[Span]:
    """Read dates and seasons: "2019", "july 2019", "1 july 2019", "summer 2019", "90s"."""
    yield from _numbers(tokens, calendar)
    if len(tokens) == 1 and (decade := DECADE.fullmatch(tokens[0])):
        century = decade[1] or ("20" if decade[2] in "01" else "19")
        year = int(f"{century}{decade[2]}0")
        yield Span(f"{year}s", date(year, 1, 1), date(year + 9, 12, 31))
    ordered = list(tokens)
    if len(ordered) > 1 and ORDINAL.fullmatch(ordered[0]) and not ordered[1].isdigit():
        ordered[:2] = [ordered[1], ordered[0]]  # "1 july" as "july 1"
    name, *more = ordered
    if len(name) < SHORTEST or not name.isalpha():
        return
    for number, month in enumerate(MONTHS, 1):
        if month.lower().startswith(name) or (name == "sept" and number == 9):
            yield from _of_month(number, more, calendar)
    for season, first in SEASONS.items():
        if season.startswith(name) and len(more) <= 1:
            for year in _years_from(more, calendar):
                label = f"{season} {year}"
                yield _season(label, year, first, calendar)
    if "christmas".startswith(name) and len(more) <= 1:
        for year in _years_from(more, calendar):
            yield _christmas(f"Christmas {year}", year)


def _numbers(tokens: Sequence[str], calendar: Calendar) -> Iterator[Span]:
    """Read "2019", "2019-07" and "2019-07-01", or the beginning of a year."""
    if not all(NUMBER.fullmatch(token) for token in tokens) or len(tokens) > 3:
        return
    first, *more = tokens
    if len(first) in (2, 3) and not more and first[:2] in ("18", "19", "20"):
        for year in _years_from([first], calendar):
            yield _year(str(year), year)
    if len(first) != 4 or not _is_year(int(first)):
        return
    year, rest = int(first), [int(number) for number in more if len(number) <= 2]
    if len(rest) != len(more):
        return
    if not rest:
        yield _year(first, year)
    elif 1 <= rest[0] <= 12:
        name = f"{MONTHS[rest[0] - 1]} {year}"
        if len(rest) == 1:
            yield _month(name, year, rest[0])
        elif day := _sure(year, *rest):
            yield _day(f"{day.day} {name}", day)


def _of_month(month: int, more: Sequence[str], calendar: Calendar) -> Iterator[Span]:
    """Read what follows a month: nothing, a year, a day, or a day and a year."""
    name, day = MONTHS[month - 1], ORDINAL.fullmatch(more[0]) if more else None
    if len(more) > 2:
        return
    if len(more) < 2:
        for year in _years_from(more, calendar, month):
            yield _month(f"{name} {year}", year, month)
    if day and 1 <= int(day[1]) <= 31:
        for year in _years_from(more[1:], calendar, month):
            if found := _sure(year, month, int(day[1])):
                yield _day(f"{found.day} {name} {year}", found)


def _years_from(more: Sequence[str], calendar: Calendar, month: int | None = None) -> list[int]:
    """Return the year that is given, or those with pictures that it may become, newest first."""
    begun = more[0] if more else ""
    if NUMBER.fullmatch(begun) and len(begun) == 4:
        return [int(begun)] if _is_year(int(begun)) else []
    if begun and not NUMBER.fullmatch(begun):
        return []
    known = (
        calendar.years
        if month is None
        else sorted({year for year, number in calendar.months if number == month}, reverse=True)
    )
    return [year for year in known if str(year).startswith(begun) and _is_year(year)]


def _sure(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


# Chinese


def _chinese(text: str, calendar: Calendar) -> Iterator[Span]:
    """Read 昨天, 上个月, 去年夏天, 2019年7月1日, and the beginnings of such."""
    for phrase, make in _CHINESE:
        if phrase.startswith(text):
            yield make(phrase, calendar)
    if given := CHINESE_DATE.fullmatch(text):
        yield from _chinese_date(int(given[1]), given[2], given[3])
    if given := CHINESE_DAY.fullmatch(text):
        yield from _chinese_of_month(int(given[1]), given[2], calendar)
    if text in CHINESE_MONTHS:
        yield from _chinese_of_month(CHINESE_MONTHS[text], None, calendar)
    if given := CHINESE_SEASON.fullmatch(text):
        for year in _chinese_years(given[1], calendar):
            label = f"{year}年{given[2]}天"
            yield _season(label, year, CHINESE_SEASONS[given[2]], calendar)
    if given := CHINESE_CHRISTMAS.fullmatch(text):
        for year in _chinese_years(given[1], calendar):
            yield _christmas(f"{year}年圣诞节", year)


def _chinese_date(year: int, month: str | None, day: str | None) -> Iterator[Span]:
    if not _is_year(year):
        return
    if month is None:
        yield _year(f"{year}年", year)
    elif 1 <= int(month) <= 12:
        label = f"{year}年{int(month)}月"
        if day is None:
            yield _month(label, year, int(month))
        elif found := _sure(year, int(month), int(day)):
            yield _day(f"{label}{found.day}日", found)


def _chinese_of_month(month: int, day: str | None, calendar: Calendar) -> Iterator[Span]:
    if 1 <= month <= 12:
        for year in _years_from([], calendar, month):
            yield from _chinese_date(year, str(month), day)


def _chinese_years(given: str | None, calendar: Calendar) -> list[int]:
    if not given:
        return calendar.years
    if given in CHINESE_YEARS:
        return [calendar.today.year - CHINESE_YEARS[given]]
    year = int(given.rstrip("年"))
    return [year] if _is_year(year) else []


_CHINESE: list[tuple[str, _Make]] = [
    ("今天", lambda label, c: _day(label, c.today)),
    ("昨天", lambda label, c: _day(label, c.today - DAY)),
    ("前天", lambda label, c: _day(label, c.today - DAY * 2)),
    ("本周", lambda label, c: _week(label, c.today)),
    ("这周", lambda label, c: _week(label, c.today)),
    ("这个星期", lambda label, c: _week(label, c.today)),
    ("上周", lambda label, c: _week(label, c.today - DAY * 7)),
    ("上个星期", lambda label, c: _week(label, c.today - DAY * 7)),
    ("本月", lambda label, c: _month(label, c.today.year, c.today.month)),
    ("这个月", lambda label, c: _month(label, c.today.year, c.today.month)),
    ("上月", lambda label, c: _month(label, c.today.year, c.today.month - 1)),
    ("上个月", lambda label, c: _month(label, c.today.year, c.today.month - 1)),
    ("今年", lambda label, c: _year(label, c.today.year)),
    ("去年", lambda label, c: _year(label, c.today.year - 1)),
    ("前年", lambda label, c: _year(label, c.today.year - 2)),
    ("最近7天", lambda label, c: _last_days(label, c.today, 7)),
    ("最近一周", lambda label, c: _last_days(label, c.today, 7)),
    ("最近30天", lambda label, c: _last_days(label, c.today, 30)),
    ("最近一个月", lambda label, c: _last_days(label, c.today, 30)),
]
