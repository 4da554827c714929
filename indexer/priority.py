"""Step back for whoever waits for an answer."""

import contextlib
import os
from pathlib import Path

__all__ = ["step_back"]

SESSION = Path("/proc/self/autogroup")


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
