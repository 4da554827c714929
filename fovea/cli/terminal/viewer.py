"""Open pictures in the program that the desktop shows them with."""

import os
import shutil
import sys
import time
from collections.abc import Iterable

from fovea.search.clip.errors import FoveaError
from fovea.search.library.paths import printable_name
from fovea.web.jobs.desktop import WAIT_S, has_desktop, outcome, started

from .copying import Check, open_regular

__all__ = ["check_viewer", "file_at_hand", "open_files"]


def check_viewer() -> str:
    """Return the command that opens a file on this desktop.

    Raise ``FoveaError`` where there is no desktop, or not one that the person sits at.
    """
    if sys.platform == "darwin":
        if not has_desktop():
            raise FoveaError("nothing is opened: this is a session over SSH; use --copy-to DIR")
        return "open"
    if not has_desktop():
        raise FoveaError(
            "nothing is opened: there is no desktop here (neither DISPLAY nor WAYLAND_DISPLAY is "
            "set); use --preview, or --copy-to DIR"
        )
    if shutil.which("xdg-open") is None:
        raise FoveaError("nothing is opened: there is no xdg-open; install xdg-utils")
    return "xdg-open"


def file_at_hand(paths: Iterable[str], check: Check | None = None) -> str:
    """Return the first of an image's files that is there and passes.

    Raise ``FoveaError`` if none is.
    """
    names = tuple(paths)
    if check is not None:
        try:
            path, file = open_regular(names, check)
        except OSError as exc:
            raise FoveaError(f"{printable_name(names[0])}: {exc.strerror}") from exc
        file.close()
        return path
    for path in names:
        if os.path.isfile(path):
            return path
    raise FoveaError(f"{printable_name(names[0])} is offline, or gone")


def open_files(paths: Iterable[str]) -> list[str]:
    """Open files, each in its viewer, and return what went wrong, one line each.

    Raise ``FoveaError`` as ``check_viewer`` does.
    """
    opener = check_viewer()
    running, problems = [], []
    for path in paths:
        try:
            process = started([opener, path])
        except OSError as exc:
            problems.append(f"cannot open {printable_name(path)}: {opener}: {exc.strerror}")
        else:
            running.append((path, process))
    deadline = time.monotonic() + WAIT_S
    for path, process in running:
        code = outcome(process, deadline)
        if code:
            problems.append(f"cannot open {printable_name(path)}: {opener} failed ({code})")
    return problems
