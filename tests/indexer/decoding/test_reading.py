"""Files are read whole, once, and nothing that is no file is ever waited for."""

import os

import pytest

from fovea.indexer.decoding.limits import Gone, Limits, Refused, Unreadable, one_line
from fovea.indexer.decoding.reading import distinct_time, read_file


def test_bytes_size_and_time_come_back(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"some bytes")
    os.utime(path, ns=(5, 6_000_000_007))
    contents = read_file(os.fsencode(path), Limits())
    assert (contents.data, contents.size, contents.mtime_ns) == (b"some bytes", 10, 6_000_000_007)


@pytest.mark.parametrize(
    ("mtime", "now", "remembered"),
    [
        (1_500_000_007, 1_510_000_000, 1_500_000_006),  # within a tick
        (1_500_000_007, 1_490_000_000, 1_500_000_006),  # by a clock that is a little ahead
        (1_500_000_007, 1_530_000_000, 1_500_000_007),
        (
            4_000_000_000,
            5_900_000_000,
            3_999_999_999,
        ),  # whole seconds, of which FAT has every other
        (4_000_000_000, 6_100_000_000, 4_000_000_000),
        (9_000_000_000_000_000_000, 6_100_000_000, 9_000_000_000_000_000_000),
    ],
)
def test_a_time_that_may_be_given_again_is_not_remembered(mtime, now, remembered):
    assert distinct_time(mtime, now) == remembered


def test_a_file_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "sparse.jpg"
    with open(path, "wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(Refused, match="too large: the file has 8,192 MB; the limit is 512 MB"):
        read_file(os.fsencode(path), Limits())


def test_a_kernel_file_of_no_size_is_read_up_to_the_limit():
    with pytest.raises(Refused, match="too large"):
        read_file(b"/proc/self/status", Limits(file_bytes=16))


def test_a_pipe_a_link_a_device_and_a_folder_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name, reason in (
        (tmp_path / "fifo", "a named pipe"),
        (tmp_path / "link", "a symbolic link"),
        (tmp_path, "a folder"),
        ("/dev/zero", "a device"),
    ):
        with pytest.raises(Refused, match=f"not a file but {reason}"):
            read_file(os.fsencode(name), Limits())


def test_what_has_vanished_is_gone(tmp_path):
    with pytest.raises(Gone):
        read_file(os.fsencode(tmp_path / "a.jpg"), Limits())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_what_may_not_be_read_is_unreadable(tmp_path):
    (tmp_path / "a.jpg").touch(mode=0)
    with pytest.raises(Unreadable, match="unreadable: Permission denied"):
        read_file(os.fsencode(tmp_path / "a.jpg"), Limits())


def test_text_from_a_file_becomes_one_short_printable_line():
    assert one_line("a\x1b[2J\r\nSet-Cookie:\u2028 b\0") == "a [2J Set-Cookie: b"
    assert one_line("x" * 500, 10) == "x" * 9 + "…"
