"""The file manager: which commands show a file, and that no name says anything else to them."""

import os
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from urllib.parse import unquote_to_bytes

import pytest

from fovea.search.errors import FoveaError
from fovea.web.jobs import desktop

linux = pytest.mark.skipif(sys.platform != "linux", reason="the freedesktop's file managers")

NAMES = (
    b"plain.jpg", b"-rf.jpg", b"--help", b"a b.jpg", b"it's.jpg", b'"quoted".jpg',
    b"line\nbreak.jpg",
    b"100%25.jpg", b"%s%n.jpg", b"a,b;c&d|e.jpg", b"$(touch x)`x`.jpg", b"odd\xff\xfe.jpg",
    "日本語.jpg".encode(), b"a'] , 'file:///etc/passwd.jpg", b"back\\slash.jpg", b"#frag?query.jpg",
)  # fmt: skip


@pytest.fixture
def bin(tmp_path, monkeypatch):
    """A folder that alone is on PATH, and a desktop."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return folder


def install(folder, name, code=0, then=""):
    """Put a program on PATH that notes its arguments, each with a null character behind it."""
    program = folder / name
    noted = folder.parent / f"{name}.noted"
    program.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" > '{noted}'\n{then}\nexit {code}\n")
    program.chmod(0o755)
    return noted


def arguments(noted):
    return noted.read_bytes().split(b"\0")[:-1]


@linux
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("program", ["gdbus", "dbus-send"])
def test_on_d_bus_a_file_is_an_address_of_harmless_characters(bin, program, name):
    noted = install(bin, program)
    desktop.show_in_folder(os.fsdecode(b"/photos/" + name))
    said = arguments(noted)
    assert said[0] in (b"call", b"--session")
    [address] = [one for one in said if b"file://" in one]
    address = address.removeprefix(b"['").removesuffix(b"']").removeprefix(b"array:string:")
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%/._~-"
    assert set(address.removeprefix(b"file://")) <= set(plain)
    assert unquote_to_bytes(address) == b"file:///photos/" + name


@linux
@pytest.mark.parametrize("name", NAMES)
def test_without_a_file_manager_on_d_bus_its_folder_is_opened(bin, name):
    install(bin, "gdbus", code=1)
    noted = install(bin, "xdg-open")
    desktop.show_in_folder(os.fsdecode(b"/photos/" + name + b"/x.jpg"))
    assert arguments(noted) == [b"/photos/" + name]


@linux
def test_a_file_manager_that_selects_the_file_is_asked_alone(bin):
    install(bin, "gdbus")
    folder = install(bin, "xdg-open")
    desktop.show_in_folder("/photos/a.jpg")
    assert not folder.exists()


@linux
def test_one_that_does_not_answer_is_ended_and_one_that_stays_open_is_left(bin, monkeypatch):
    monkeypatch.setattr(desktop, "WAIT_S", 0.3)
    sleep = shutil.which("sleep", path=os.defpath)
    install(bin, "gdbus", then=f"echo $$ > '{bin.parent}/pid'; exec {sleep} 60")
    folder = install(bin, "xdg-open", then=f"exec {sleep} 3")
    desktop.show_in_folder("/photos/a.jpg")
    assert arguments(folder) == [b"/photos"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((bin.parent / "pid").read_text()), 0)


@linux
def test_where_nothing_can_show_it_that_is_one_line(bin, monkeypatch):
    assert not desktop.can_show()
    with pytest.raises(FoveaError, match="no file manager"):
        desktop.show_in_folder("/photos/a.jpg")
    install(bin, "xdg-open", code=4)
    assert desktop.can_show()
    with pytest.raises(FoveaError, match="no file manager"):
        desktop.show_in_folder("/photos/a.jpg")
    monkeypatch.delenv("DISPLAY")
    assert not desktop.can_show()
    with pytest.raises(FoveaError, match="no desktop"):
        desktop.show_in_folder("/photos/a.jpg")


@linux
def test_a_path_that_is_not_whole_is_refused(bin):
    noted = install(bin, "gdbus")
    with pytest.raises(FoveaError, match="whole path"):
        desktop.show_in_folder("--help")
    assert not noted.exists()


@linux
def test_one_file_is_shown_at_a_time(bin):
    fifo = bin.parent / "fifo"
    os.mkfifo(fifo)
    install(bin, "gdbus", then=f"read line < '{fifo}'")
    first = threading.Thread(target=desktop.show_in_folder, args=("/photos/a.jpg",))
    first.start()
    with ExitStack() as ending:
        ending.callback(first.join)
        writer = ending.enter_context(fifo.open("w"))  # waits until the program reads
        with pytest.raises(BlockingIOError):
            desktop.show_in_folder("/photos/b.jpg")
        writer.write("go\n")


@pytest.mark.parametrize(
    ("platform", "command"),
    [
        ("darwin", ["open", "-R", '/photos/-a "b".jpg']),
        ("win32", None),  # no name there has a quotation mark
    ],
)
def test_other_systems_have_commands_of_their_own(monkeypatch, platform, command):
    monkeypatch.setattr(desktop.sys, "platform", platform)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    found = [one if isinstance(one, str) else list(one) for one in commands('/photos/-a "b".jpg')]
    assert found == ([command] if command else [])
    assert desktop.can_show()
    if platform == "win32":
        assert commands(r"C:\my photos\a,b.jpg") == [r'explorer.exe /select,"C:\my photos\a,b.jpg"']
    else:
        monkeypatch.setenv("SSH_CONNECTION", "here there")
        assert not desktop.can_show()


def commands(path):
    return list(desktop._commands(path))


@linux
def test_a_session_bus_carries_the_address_as_it_is(tmp_path, monkeypatch):
    """A bus without a file manager refuses; its monitor shows what it was asked."""
    for program in ("dbus-daemon", "dbus-monitor", "gdbus"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    (tmp_path / "config").write_text(
        f"<busconfig><type>session</type><listen>unix:dir={tmp_path}</listen>"
        '<policy context="default"><allow send_destination="*" eavesdrop="true"/>'
        '<allow eavesdrop="true"/><allow own="*"/></policy></busconfig>'
    )
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={tmp_path}/config", "--nofork", "--print-address"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with daemon:
        try:
            address = daemon.stdout.readline().strip()
            monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
            monkeypatch.setenv("DISPLAY", ":9")
            monitor = subprocess.Popen(
                ["dbus-monitor", "--address", address, f"destination={desktop.MANAGER}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            with monitor:
                try:
                    next(line for line in monitor.stdout if "NameLost" in line)  # it listens
                    command = next(desktop._commands('/photos/it\'s 100%, "so".jpg'))
                    assert not desktop._succeeds(command)
                    seen = next(line for line in monitor.stdout if "file:///" in line)
                finally:
                    monitor.kill()
        finally:
            daemon.kill()
    assert seen.strip() == 'string "file:///photos/it%27s%20100%25%2C%20%22so%22.jpg"'
