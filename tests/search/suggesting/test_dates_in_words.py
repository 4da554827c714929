"""Dates in words, against days worked out by hand."""

from datetime import date, timedelta

import pytest

from fovea.search.query.language import Query, parse
from fovea.search.suggesting.dates_in_words import Calendar, filters_of, spans, written

THURSDAY = date(2026, 11, 26)
MONTHS = frozenset({(2018, 7), (2019, 7), (2019, 12), (2020, 5), (2026, 11)})
HERE = Calendar(THURSDAY, MONTHS)


@pytest.mark.parametrize(
    "phrase, filters",
    [
        ("today", "on:2026-11-26"),
        ("yesterday", "on:2026-11-25"),
        ("this week", "after:2026-11-22 before:2026-11-30"),
        ("last week", "after:2026-11-15 before:2026-11-23"),
        ("last weekend", "after:2026-11-20 before:2026-11-23"),
        ("this month", "on:2026-11"),
        ("last month", "on:2026-10"),
        ("this year", "on:2026"),
        ("last year", "on:2025"),
        ("last summer", "after:2026-05 before:2026-09"),
        ("last winter", "after:2025-11 before:2026-03"),
        ("last autumn", "after:2025-08 before:2025-12"),  # this one is not over
        ("last fall", "after:2025-08 before:2025-12"),
        ("last christmas", "after:2025-12-23 before:2025-12-27"),
        ("christmas 2020", "after:2020-12-23 before:2020-12-27"),
        ("winter 2019", "after:2019-11 before:2020-03"),
        ("summer 2019", "after:2019-05 before:2019-09"),
        ("last 7 days", "after:2026-11-19 before:2026-11-27"),
        ("3 days ago", "on:2026-11-23"),
        ("2 years ago", "on:2024"),
        ("1 month ago", "on:2026-10"),
        ("11 months ago", "on:2025-12"),
        ("90s", "after:1989 before:2000"),
        ("1990s", "after:1989 before:2000"),
        ("2010s", "after:2009 before:2020"),
        ("2019", "on:2019"),
        ("2019-07", "on:2019-07"),
        ("2019-07-14", "on:2019-07-14"),
        ("2019/7/4", "on:2019-07-04"),
        ("July 2019", "on:2019-07"),
        ("JUL 2019", "on:2019-07"),
        ("sept 2019", "on:2019-09"),
        ("14 july 2019", "on:2019-07-14"),
        ("july 14th 2019", "on:2019-07-14"),
        ("july", "on:2019-07"),
        ("july 20", "on:2019-07"),
        ("july 2018", "on:2018-07"),
        ("dec", "on:2019-12"),
        ("20", "on:2026"),
        ("201", "on:2019"),
        ("今天", "on:2026-11-26"),
        ("昨天", "on:2026-11-25"),
        ("前天", "on:2026-11-24"),
        ("上周", "after:2026-11-15 before:2026-11-23"),
        ("上個月", "on:2026-10"),
        ("去年", "on:2025"),
        ("前年", "on:2024"),
        ("去年夏天", "after:2025-05 before:2025-09"),
        ("2019年", "on:2019"),
        ("2019年7月", "on:2019-07"),
        ("２０１９年７月", "on:2019-07"),
        ("2019年7月14日", "on:2019-07-14"),
        ("2019 年 7 月", "on:2019-07"),
        ("7月", "on:2019-07"),
        ("七月", "on:2019-07"),
        ("2019年夏天", "after:2019-05 before:2019-09"),
        ("聖誕節", "after:2026-12-23 before:2026-12-27"),
        ("最近30天", "after:2026-10-27 before:2026-11-27"),
    ],
)
def test_phrases_mean_these_days(phrase, filters):
    span = spans(phrase, HERE)[0]
    assert str(Query(filters=filters_of(span))) == filters


@pytest.mark.parametrize(
    "phrase",
    [
        "", "dog", "to", "ju", "2019-13", "2019-02-30", "july 32", "0000", "9999", "1600",
        "july 1600", "99999 days ago", "9999年", "2019年13月", "海滩", "july dog", "1 2 3 4", "年",
    ],
)  # fmt: skip
def test_what_is_no_date_means_no_day(phrase):
    assert spans(phrase, HERE) == []


def test_unfinished_phrases_are_what_they_may_become():
    assert [span.label for span in spans("last s", HERE)] == ["last spring", "last summer"]
    assert spans("yes", HERE)[0].label == "yesterday"
    assert {span.label for span in spans("上", HERE)} == {"上周", "上月"}


def test_last_is_the_one_that_is_over():
    in_summer = Calendar(date(2026, 7, 1))
    assert spans("last summer", in_summer)[0].first == date(2025, 6, 1)
    assert spans("this summer", in_summer)[0].first == date(2026, 6, 1)
    in_january = Calendar(date(2026, 1, 15))
    assert spans("last month", in_january)[0].first == date(2025, 12, 1)
    assert spans("last winter", in_january)[0].first == date(2024, 12, 1)


def test_southern_seasons_are_the_other_way_round():
    there = Calendar(THURSDAY, MONTHS, is_south=True)
    span = spans("summer 2019", there)[0]
    assert (span.first, span.last) == (date(2019, 12, 1), date(2020, 2, 29))


def test_every_day_of_a_leap_year_has_its_phrases():
    for number in range(366):
        today = date(2024, 1, 1) + timedelta(days=number)
        calendar = Calendar(today, MONTHS)
        for phrase in (
            "today",
            "last week",
            "last month",
            "last winter",
            "last christmas",
            "上个月",
        ):
            for span in spans(phrase, calendar):
                assert span.first <= span.last <= today
                assert parse(str(Query(filters=filters_of(span)))).filters == filters_of(span)
                assert written(span)


def test_before_and_after_take_the_edges():
    [span] = spans("summer 2019", HERE)
    assert str(Query(filters=filters_of(span, "after"))) == "after:2019-08"
    assert str(Query(filters=filters_of(span, "before", True))) == "-before:2019-06"
    assert filters_of(span, negated=True) == ()
    assert str(Query(filters=filters_of(spans("2019", HERE)[0], negated=True))) == "-on:2019"
