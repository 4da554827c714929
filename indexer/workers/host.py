"""Host processes of fovea's own: start them, talk to them, limit them, end them.

A worker answers requests one after another. A request, like an answer, is a JSON object and some
bytes. The kernel enforces the worker's limits: an alarm ends it where a request takes too long, an
address-space limit where it grows too large. Systems without one of these do without.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fovea
from fovea.indexer.decoding.limits import Limits, one_line

__all__ = ["Message", "Process", "available_cores", "command", "serve", "set_alarm", "step_back"]

Message = tuple[dict[str, Any], bytes]

SESSION = Path("/proc/self/autogroup")
BUFFER = 1 << 18  # bytes of a connection each way: all requests and answers under way fit
GROWTH = 0.25  # of its memory limit that a worker may keep between two requests
NICE = 5  # a worker makes way for the encoder where both share the cores


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
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


# The parent's side


class Process:
    """A worker process that runs ``main(settings)`` of a module, and the connection to it.

    ``settings`` reach it as JSON, with the limits and the connection's descriptor; ``shared`` are
    descriptors that it inherits. ``is_tired`` is set when it has grown and takes no more requests.
    Raise ``OSError`` if it cannot be started.
    """

    def __init__(
        self, module: str, limits: Limits, settings: dict[str, Any], shared: Sequence[int] = ()
    ) -> None:
        self.is_ready = self.is_tired = False
        self.complaint = ""  # once it has ended: the last line that it wrote before it was ready
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for end in (ours, theirs):
                _widen(end)
            told = settings | {"connection": theirs.fileno(), "limits": asdict(limits)}
            self._process = subprocess.Popen(
                command(module, json.dumps(told)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,  # until it is ready
                pass_fds=(theirs.fileno(), *shared),
                start_new_session=True,  # Ctrl-C is for the parent alone
                # Threads of NumPy's libraries would reserve address space for nothing.
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            self.connection = Connection(ours.detach())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(
        self, fields: dict[str, Any], data: bytes = b"", descriptor: int | None = None
    ) -> None:
        """Send a request; raise ``OSError`` if the process has ended.

        With a file's ``descriptor``, the process gets one of its own, as ``file`` of the request.
        """
        if descriptor is None:
            _send(self.connection, fields, data)
            return
        _send(self.connection, fields | {"file": True}, data)
        with socket.socket(fileno=os.dup(self.connection.fileno())) as ours:
            socket.send_fds(ours, [b"."], [descriptor])

    def receive(self, seconds: float | None = None) -> Message | None:
        """Return the next answer, or None once, when the process has become ready.

        Raise ``EOFError`` or ``OSError`` if it has ended, or says nothing for so many seconds.
        """
        if not self.connection.poll(seconds):
            raise EOFError
        fields, data = _receive(self.connection)
        if not self.is_ready:
            self.is_ready = True
            return None
        self.is_tired = fields.pop("tired")
        return fields, data

    def kill(self) -> None:
        """Kill the process; ``end`` is still to be called."""
        self._process.kill()

    def end(self) -> int | None:
        """End the process and return how it ended: an exit code, or minus a signal.

        None if it had to be killed here.
        """
        self.connection.close()
        try:
            code: int | None = self._process.wait(0.5 if self.is_running else 0)
        except subprocess.TimeoutExpired:
            self.kill()
            code = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)  # a dead disk may hold it: then it ends when that answers
        assert self._process.stderr is not None
        with self._process.stderr as errors:
            said = b"" if self.is_running else errors.read()
        lines = said.decode("utf-8", "replace").strip().splitlines()
        self.complaint = one_line(lines[-1]) if lines else "no reason given"
        return code


def _widen(end: socket.socket) -> None:
    """Give a socket buffers of ``BUFFER`` bytes, or of as many as the system grants."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        size = BUFFER
        while size >= 1 << 13:
            try:
                end.setsockopt(socket.SOL_SOCKET, option, size)
                break
            except OSError:
                size //= 2


def _send(connection: Connection, fields: dict[str, Any], data: bytes) -> None:
    connection.send_bytes(json.dumps(fields).encode())
    connection.send_bytes(data)


def _receive(connection: Connection) -> Message:
    return json.loads(connection.recv_bytes()), connection.recv_bytes()


# The worker's side


def serve(
    descriptor: int, limits: Limits, answer: Callable[[dict[str, Any], bytes], Message]
) -> None:
    """Answer requests until the other end closes the connection.

    End after an answer that leaves this process too large: what decoders leak would some day make
    a sound picture exceed the limit.
    """
    from fovea.indexer.decoding.pillow import prepare  # heavy for those who only start processes

    prepare()
    connection = Connection(descriptor)
    most = _confine(limits.memory) + int(GROWTH * limits.memory)
    try:
        _send(connection, {}, b"")
        _silence()
        is_tired = False
        while not is_tired:
            request, data = _receive(connection)
            set_alarm(limits.seconds)
            if request.get("file"):
                request["file"] = _received_file(descriptor)
            fields, made = answer(request, data)
            set_alarm(0)
            is_tired = _address_space() > most
            _send(connection, fields | {"tired": is_tired}, made)
    except (EOFError, ConnectionError):
        return


def _received_file(connection: int) -> int:
    """Take the descriptor that follows a request; whoever answers it closes it."""
    with socket.socket(fileno=os.dup(connection)) as ours:
        _, [descriptor], _, _ = socket.recv_fds(ours, 1, 1)
    return descriptor


def set_alarm(seconds: float) -> None:
    """Let the kernel end this process after so many seconds, even in the middle of C code."""
    if hasattr(signal, "setitimer"):  # else the parent's patience is the limit
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _confine(memory: int) -> int:
    """Hold this process to ``memory`` bytes in all, step back for others, dump no core.

    All of its address space counts, of which what is in memory is a part, so the limit holds
    whatever a decoder does. However small it is, the process may grow by half of it. Return its
    size now.
    """
    step_back(NICE)
    size = _address_space()
    _limit("RLIMIT_CORE", 0)
    if size:
        _limit("RLIMIT_AS", max(memory, size + memory // 2))
    return size


def _limit(name: str, most: int) -> None:
    """Set one of this process's resource limits, unless it is lower or the system refuses."""
    number = getattr(resource, name, None)
    if number is None:
        return
    with contextlib.suppress(OSError, ValueError):  # macOS refuses RLIMIT_AS
        hard = resource.getrlimit(number)[1]
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(number, (most, most))


def _address_space() -> int:
    """Return the bytes of this process's address space; 0 where there is no /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _silence() -> None:
    """Discard what C libraries print about broken files."""
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
