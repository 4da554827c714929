"""A real terminal for these tests: it may answer queries as some emulators do."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

from places import CHECKOUT

PATIENCE_S = 120


class Screen:
    """What a command wrote to its terminal, and how it ended."""

    def __init__(self, text, code):
        self.text, self.code = text.replace("\r\n", "\n"), code


def run_at_terminal(command, *, env=(), rows=24, columns=100, pixels=(0, 0), answers=()):
    """Run a command with a terminal as its standard streams.

    ``answers`` has pairs: what a program may write, and what is answered or typed then; ``pixels``
    is the width and height that the terminal tells.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, *pixels))
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("COLORTERM", "COLUMNS", "LINES", "NO_COLOR", "TMUX")
    }
    process = subprocess.Popen(
        command, cwd=CHECKOUT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=kept | {"TERM": "xterm-256color"} | dict(env),
    )  # fmt: skip
    os.close(theirs)
    written, asked = b"", b""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                more = os.read(ours, 1 << 16)
            except OSError:  # the last one to hold the other end has closed it
                break
            if not more:
                break
            written, asked = written + more, asked + more
            for query, answer in dict(answers).items():
                if query in asked:
                    os.write(ours, answer)
                    asked = asked.replace(query, b"")
    if time.monotonic() >= deadline:
        process.kill()
    code = process.wait(PATIENCE_S)
    os.close(ours)
    return Screen(written.decode(errors="replace"), code)


@pytest.fixture
def at_terminal(used):
    """A function that runs fovea in a terminal, with the library of ``used``."""

    def run(*words, env=(), **options):
        command = [sys.executable, "-m", "fovea", *map(str, words)]
        return run_at_terminal(
            command, env={"FOVEA_LIBRARY": str(used / "library"), **dict(env)}, **options
        )

    return run


def leave_terminal(command, *, env, sign):
    """Run a command in a terminal that goes away, without a signal, once ``sign`` is written.

    Return its exit status, or None if it goes on for ``PATIENCE_S``.
    """
    ours, theirs = pty.openpty()  # it controls no process: nobody is told with SIGHUP
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        command, cwd=CHECKOUT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=os.environ | {"TERM": "xterm-256color"} | env,
    )  # fmt: skip
    os.close(theirs)
    written, deadline = b"", time.monotonic() + PATIENCE_S
    while sign not in written and time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            written += os.read(ours, 1 << 16)
    os.close(ours)
    try:
        return process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def talk_to(command, env, steps, *, done):
    """Run an interactive program in a terminal, and type ``steps``: what to wait for, what to type.

    Return what it wrote until ``done()`` holds, or until patience is over.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
    # The first in a session to open a terminal is controlled by it.
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" <"$0"', os.ttyname(theirs), *command],
        env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    written, seen, left = b"", 0, list(steps)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < deadline and not (done() and not left):
            if select.select([ours], [], [], 0.1)[0]:
                written += os.read(ours, 1 << 16)
            if left and left[0][0] in written[seen:]:
                seen = len(written)
                os.write(ours, left.pop(0)[1])
    except OSError:  # it has ended
        pass
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return written.decode(errors="replace")


@pytest.fixture
def type_into():
    return talk_to


@pytest.fixture
def left_by_terminal():
    return leave_terminal
