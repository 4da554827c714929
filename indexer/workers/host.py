"""Processes of fovea's own: the commands that start them, and how they make way for others."""

import contextlib
import os
import sys
from pathlib import Path

import fovea

__all__ = ["available_cores", "command", "step_back"]

SESSION = Path("/proc/self/autogroup")


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that calls ``main(*arguments)`` of a module in a new interpreter.

    The new process finds packages where this one does, but never in the current folder.
    """
    count = len(arguments) + 1
    program = (
        f"import sys; sys.path[:] = sys.argv[{count}:]; "
        f"from {module} import main; main(*sys.argv[1:{count}])"
    )
    own = str(Path(fovea.__file__).parents[1])
    places = (own, *(entry for entry in sys.path if entry))
    return [sys.executable, "-I", "-c", program, *arguments, *places]


def step_back(by: int) -> None:
    """Lower this process's priority, on the scale of ``nice``, where the system has one.

    Linux may weigh whole sessions against each other (sched(7), "The autogroup feature"): a process
    with a session of its own is only nice to others once its session is.
    """
    if not hasattr(os, "nice"):
        return
    level = os.nice(by)
    with contextlib.suppress(OSError):
        if os.getsid(0) == os.getpid():
            SESSION.write_text(str(level))


def available_cores() -> int:
    """The number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
