"""Programs of the desktop at which the server runs: the file manager, with a file selected.

Programs are started without a shell, with whole paths or addresses as arguments. Tests put programs
of their own on PATH.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from urllib.parse import quote_from_bytes

from fovea.search.errors import FoveaError

__all__ = ["can_show", "has_desktop", "outcome", "show_in_folder", "started"]

WAIT_S = 5.0  # for a program to fail; some stay as long as the window that they open
ANSWER_S = 4  # for a file manager to answer over D-Bus; it may have to start first
MANAGER = "org.freedesktop.FileManager1"  # freedesktop.org, file-manager-interface
OBJECT = "/org/freedesktop/FileManager1"

_turn = threading.Lock()  # one window at a time


def has_desktop() -> bool:
    """Whether a program can open a window here that the person who started us sees."""
    if sys.platform == "darwin":
        return "SSH_CONNECTION" not in os.environ
    if sys.platform == "win32":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def can_show() -> bool:
    """Whether there is a desktop, and a program that could show a file in its folder."""
    return has_desktop() and any(True for _ in _commands("/"))


def show_in_folder(path: str) -> None:
    """Open the file manager with a file selected, or at least its folder.

    Wait some seconds for it to fail. Raise ``FoveaError`` if no program here can do it, and
    ``BlockingIOError`` while another file is being shown.
    """
    if not os.path.isabs(path):
        raise FoveaError("only a whole path can be shown in its folder")
    if not has_desktop():
        raise FoveaError("there is no desktop where the server runs, so no folder can be shown")
    if not _turn.acquire(blocking=False):
        raise BlockingIOError("another file is being shown")
    try:
        if not any(map(_succeeds, _commands(path))):
            raise FoveaError("no file manager could be started where the server runs")
    finally:
        _turn.release()


def started(command: Sequence[str] | str) -> "subprocess.Popen[bytes]":
    """Start a program that may outlive us. Raise ``OSError``."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is not for it
    )


def outcome(process: "subprocess.Popen[bytes]", deadline: float) -> int | None:
    """Return a program's exit status, or None if it still runs at a time of ``time.monotonic``."""
    try:
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.returncode = 0  # it outlives us: no warning that it still runs
        return None


def _commands(path: str) -> Iterator[Sequence[str] | str]:
    """Yield the commands that show a file in its folder, the best first: those that are installed.

    On D-Bus the file is an address with nothing but letters, digits and ``%/._~-``, which neither
    program reads as anything else.
    """
    if sys.platform == "darwin":
        yield "open", "-R", path
        return
    if sys.platform == "win32":
        if (
            '"' not in path
        ):  # no name has one; Explorer's own quotes are not those of other programs
            yield f'explorer.exe /select,"{path}"'
        return
    address = f"file://{quote_from_bytes(os.fsencode(path))}"
    if shutil.which("gdbus"):
        yield (
            "gdbus", "call", "--session", "--timeout", str(ANSWER_S), "--dest", MANAGER,
            "--object-path", OBJECT, "--method", f"{MANAGER}.ShowItems", f"['{address}']", "''",
        )  # fmt: skip
    elif shutil.which("dbus-send"):
        yield (
            "dbus-send", "--session", "--print-reply", f"--reply-timeout={ANSWER_S * 1000}",
            f"--dest={MANAGER}", OBJECT, f"{MANAGER}.ShowItems", f"array:string:{address}",
            "string:",
        )  # fmt: skip
    if shutil.which("xdg-open"):
        yield "xdg-open", os.path.dirname(path)


def _succeeds(command: Sequence[str] | str) -> bool:
    """Whether a command shows something, or at least goes on; one on D-Bus has to end."""
    try:
        process = started(command)
    except (OSError, ValueError):
        return False
    try:
        code = process.wait(WAIT_S)
    except subprocess.TimeoutExpired:
        if command[0] in ("gdbus", "dbus-send"):
            process.kill()
            process.wait()
            return False
        threading.Thread(target=process.wait, daemon=True).start()  # it leaves no zombie
        return True
    return not code or isinstance(command, str)  # Explorer returns 1 whatever it did
