"""What a file system says fits into the library, whatever it is."""

import sqlite3
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fovea.search.library.facts import stamps
from fovea.search.library.facts.dates import oldest
from fovea.search.library.facts.stamps import EARLIEST, LATEST, Stamps, moment, stamps_of

NUMBERS = st.one_of(st.integers(), st.sampled_from([0, -1, EARLIEST, LATEST, 2**63, -(2**63) - 1]))


def status(size=1, mtime_ns=2, ctime_ns=3):
    return SimpleNamespace(st_size=size, st_mtime_ns=mtime_ns, st_ctime_ns=ctime_ns)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_all_stamps_can_be_stored_and_compared(size, mtime_ns, ctime_ns):
    found = stamps_of(status(size, mtime_ns, ctime_ns))
    with sqlite3.connect(":memory:") as conn:
        assert conn.execute("SELECT ?, ?, ?", found).fetchone() == found
    conn.close()
    assert found.size >= 0
    assert found == stamps_of(status(*(number or 0 for number in found)))  # a fixed point


@given(NUMBERS, NUMBERS)
def test_the_order_of_times_stays(one, other):
    first, second = (stamps_of(status(mtime_ns=time)).mtime_ns for time in (one, other))
    assert (first <= second) or one > other


def test_what_is_in_range_stays_as_it_is():
    assert stamps_of(status()) == Stamps(1, 2, 3)
    assert stamps_of(status(mtime_ns=-7, ctime_ns=-9)) == Stamps(1, -7, -9)


def test_a_file_system_may_not_know_the_ctime(monkeypatch):
    assert stamps_of(status(ctime_ns=0)).ctime_ns is None
    monkeypatch.setattr(stamps, "HAS_CTIME", False)
    assert stamps_of(status()).ctime_ns is None


@pytest.mark.parametrize(
    ("times", "date"),
    [
        ([LATEST], None),
        ([EARLIEST], None),
        ([EARLIEST, LATEST], None),
        ([EARLIEST, 86_400 * 10**9], "1970-01-02"),
        ([LATEST, 86_400 * 10**9], "1970-01-02"),
        ([-(10**18)], "1938-04-24"),
        ([LATEST - 1], "2262-04-11"),
    ],
)
def test_a_time_out_of_range_is_no_date(times, date):
    found = oldest_in_utc(times)
    assert (found and found[:10]) == date


def oldest_in_utc(times):
    with sqlite3.connect(":memory:") as conn:
        conn.execute("CREATE TABLE files (mtime_ns INTEGER)")
        conn.executemany("INSERT INTO files VALUES (?)", [(time,) for time in times])
        [(found,)] = conn.execute(oldest("TRUE").replace(", 'localtime'", ""))
    conn.close()
    return found


@given(st.integers(EARLIEST + 1, LATEST - 1) | st.integers(-(2 * 10**9), 2 * 10**9))
@example(-1)
@example(-(10**9))
@example(-(10**9) - 1)
@example(EARLIEST + 1)
def test_the_database_and_the_page_agree_on_a_time(mtime_ns):
    assert oldest_in_utc([mtime_ns]) == moment(mtime_ns).replace(tzinfo=None).isoformat()


def test_a_moment_is_in_utc():
    assert moment(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert moment(LATEST - 1).year == 2262 and moment(EARLIEST + 1).year == 1677
    assert moment(LATEST) is None and moment(EARLIEST) is None
