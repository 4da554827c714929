"""Child processes of the server: both ends of the lines of JSON that they exchange.

The server writes one line with what is to be done, and may write "stop" later. The child prints
what it does. When its input is closed, because the server closes it or has ended in any way, the
child ends within seconds.
"""

import errno
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

__all__ = [
    "NICE",
    "InHand",
    "Pace",
    "asked",
    "close",
    "ended",
    "follow",
    "lines",
    "note_in_hand",
    "say",
    "start",
    "tell",
]

BLAS = "OPENBLAS_NUM_THREADS"  # limited for the server, not for its children
FAREWELL_S = 10.0  # for the batch in flight, once the server has gone
PATIENCE_S = 5.0  # for the batch in flight, while the server stops
NICE = 10  # the priority of the children
NAMED = 8  # files in hand that are named
LONGEST = 1 << 20  # bytes of what is in hand; a path has at most some thousands
EVERY_S = 0.2  # between two lines about progress

Child = subprocess.Popen[str]


# The server's side


class InHand:
    """What a child has in hand, in memory that outlives it: it may end without a word.

    The child inherits ``descriptor``, and writes with ``note_in_hand``.
    """

    def __init__(self) -> None:
        try:
            self._file = open(os.memfd_create("fovea"), "r+b", buffering=0)
        except (AttributeError, OSError):  # not on macOS, nor in every sandbox
            self._file = tempfile.TemporaryFile(buffering=0)
        self.descriptor = self._file.fileno()

    def read(self) -> tuple[str, list[str], int] | None:
        """Return what was being done, to which files (the first few), and to how many."""
        try:
            doing, paths, count = json.loads(os.pread(self.descriptor, LONGEST, 0).split(b"\n")[0])
            return (str(doing), [str(path) for path in paths], int(count)) if paths else None
        except (OSError, ValueError, TypeError):
            return None

    def close(self) -> None:
        """Let go of the memory."""
        self._file.close()


def start(command: Sequence[str], wanted: dict[str, Any], shared: Sequence[int] = ()) -> Child:
    """Start a child that is to do what is ``wanted``. Raise ``OSError`` if that is impossible.

    ``shared`` are descriptors that it inherits.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        pass_fds=tuple(shared),
        start_new_session=True,  # Ctrl-C goes to the server, which then stops this
        env={name: value for name, value in os.environ.items() if name != BLAS},
    )
    tell(process, json.dumps(wanted) + "\n")
    return process


def follow(process: Child, work: Callable[..., None], *arguments: object) -> None:
    """Call ``work(process, *arguments)`` in a thread of its own.

    Raise ``OSError`` if no thread can be started; then the child has been ended, since nobody
    would learn of its end.
    """
    try:
        threading.Thread(target=work, args=(process, *arguments), daemon=True).start()
    except RuntimeError as exc:  # as many run as the system allows
        process.kill()
        with process:  # closes its pipes
            raise OSError(errno.EAGAIN, str(exc)) from exc


def tell(process: Child, line: str) -> None:
    """Write a line to a child, which may have ended already."""
    with suppress(OSError, ValueError):
        process.stdin.write(line)  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]


def lines(process: Child) -> Iterator[dict[str, Any]]:
    """Yield what a child says until it ends; nothing for lines that some library has printed."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict):
                yield said


def ended(process: Child) -> int:
    """Wait for the end of a child, let go of it, and return its exit code."""
    code = process.wait()
    with suppress(OSError):  # a line that could not be written
        process.stdin.close()  # type: ignore[union-attr]
    return code


def close(process: Child | None) -> None:
    """Let a child end because the server does; kill one that takes too long."""
    if process is None or process.stdin is None:
        return
    with suppress(OSError):  # a line that could not be written
        process.stdin.close()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# The child's side


def note_in_hand(descriptor: int, doing: str, paths: Sequence[bytes]) -> None:
    """Note what is about to be done to some files, for a server that may ask after the end."""
    names = [os.fsdecode(path) for path in paths[:NAMED]]
    with suppress(OSError):
        os.pwrite(descriptor, json.dumps([doing, names, len(paths)]).encode() + b"\n", 0)


class Pace:
    """Says when the server may hear of progress again."""

    def __init__(self) -> None:
        self._last = 0.0

    def is_time(self) -> bool:
        """Whether ``EVERY_S`` seconds have passed since this was last true."""
        now = time.monotonic()
        if now - self._last < EVERY_S:
            return False
        self._last = now
        return True


def asked(heed: Callable[[bool], None]) -> dict[str, Any]:
    """Read what is to be done; call ``heed`` from another thread when this process is to stop.

    ``heed(True)`` is for a stop that was asked for, ``heed(False)`` for a server that has gone.
    """
    told = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  # as long as this process
    wanted: dict[str, Any] = json.loads(told.readline())
    threading.Thread(target=_listen, args=(told, heed), daemon=True).start()
    return wanted


def _listen(told: BinaryIO, heed: Callable[[bool], None]) -> None:
    while told.readline():
        heed(True)
    heed(False)
    time.sleep(FAREWELL_S)
    os._exit(1)


def say(kind: str, value: object) -> None:
    """Print a line for the server; end if it has gone."""
    try:
        print(json.dumps({kind: value}), flush=True)
    except BrokenPipeError:
        os._exit(1)
