"""Garbage on raw sockets, slow clients, and uploads of hostile files, against ``fovea serve``."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .ground import CHECKOUT, Plan, Tally, bundled_library, workplace

AT_ONCE = 16  # connections with garbage
MORE_S = 0.5  # after which a server waits for more bytes
PATIENCE_S = 30.0  # for an answer
ODD = CHECKOUT / "tests" / "odd" / "files"
HOSTILE = CHECKOUT.parent / "shared" / "hostile" / "hostile"


@dataclass
class Server:
    """A running ``fovea serve``."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(self, path: str = "/api/status", body: bytes | None = None, kind: str = "") -> int:
        """Return the status of one ordinary request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            headers = {"Content-Type": kind} if kind else {}
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if path.startswith("/api/"):
                json.loads(text)
            return answer.status
        finally:
            connection.close()

    def examine(self, tally: Tally) -> None:
        """Count a server that has died, answers no more, or has logged a traceback."""
        if self.process.poll() is not None:
            tally.add("unaccounted", f"the server ended with code {self.process.returncode}")
            return
        try:
            if (status := self.ask()) != 200:
                tally.add("wrong", f"afterwards, an ordinary request has the status {status}")
        except (OSError, http.client.HTTPException, ValueError) as exc:
            tally.add("wrong", f"afterwards, an ordinary request fails: {exc}")
        for line in self.log.read_text(errors="replace").splitlines():
            if "Traceback" in line or " failed" in line:
                tally.add("unaccounted", f"the server's log: {line}")


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Serve a small library, indexed with the bundled model."""
    with workplace() as place:
        library, environment = bundled_library()
        log = place / "log"
        command = [sys.executable, "-u", "-m", "fovea", "serve", "--library", str(library)]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [*command, "--port", "0", "--no-browser"],
                cwd=CHECKOUT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            found = re.search(r":(\d+)/", line)
            assert found, (line, log.read_text())
            yield Server(process, int(found[1]), log)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


# Garbage

LINES = (
    b"GET /api/search?q=x HTTP/1.1",
    b"POST /api/search HTTP/1.1",
    b"GET / HTTP/1.0",
    b"OPTIONS * HTTP/1.1",
    b"DELETE /api/model/change HTTP/1.1",
    b"GET http://localhost/api/status HTTP/1.1",
    b"GET /%00%ff/../../etc/passwd HTTP/1.1",
    b"GET /api/images/99999999999999999999/original HTTP/1.1",
    b"BREW /pot HTTP/1.1",
    b"GET / HTTP/9.9",
    b"GET",
    b"",
)
HEADERS = (
    b"Host: localhost",
    b"Host: localhost\r\nHost: elsewhere",
    b"Host:",
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked, nothing",
    b"Range: bytes=5-1,-,x",
    b"Cookie: \xff\xfe=\x00; ;;=",
    b"Origin: null",
    b"Expect: 100-continue",
    b"Connection: upgrade\r\nUpgrade: h2c",
    b"Content-Type: multipart/form-data; boundary=",
    b"Content-Type: application/json",
    b"X: " + b"y" * 5000,
    b" folded: line",
    b"no colon",
)
BODIES = (b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b'{"q": [')


def garbage(rng: random.Random) -> bytes:
    """A request that is nearly right, or anything at all."""
    if rng.random() < 0.2:
        return rng.randbytes(rng.randint(1, 3000))
    lines = [rng.choice(LINES), *rng.sample(HEADERS, rng.randint(0, 4))]
    data = bytearray(b"\r\n".join(lines) + b"\r\n\r\n" + rng.choice(BODIES))
    for _ in range(rng.choice((0, 0, 1, 3))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.2 else data)


def raw_garbage(plan: Plan) -> Tally:
    """Send garbage; the server answers with 4xx or closes, and goes on answering others."""
    tally, rng = Tally(), plan.random("raw garbage")
    told: dict[str, int] = {}
    with serving() as server:
        server.ask()
        requests = [garbage(rng) for _ in range(plan.count)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            statuses = list(pool.map(lambda data: _status(server.port, data), requests))
        for data, status in zip(requests, statuses, strict=True):
            tally.tried += 1
            told[status] = told.get(status, 0) + 1
            if not re.fullmatch(r"[1-4]\d\d|501|503|505|closed|waits", status):
                tally.add("unaccounted", f"{status} for {data[:200]!r}")
        server.examine(tally)
    tally.note = ", ".join(f"{status}: {told[status]}" for status in sorted(told))
    return tally


def _status(port: int, data: bytes) -> str:
    """Send bytes; return the status of the answer, ``closed``, or ``waits`` for more bytes."""
    text = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as one:
            one.sendall(data)
            one.settimeout(MORE_S)
            while len(text) < 12 and (part := one.recv(1 << 16)):
                text += part
    except TimeoutError:
        return "waits"
    except OSError:  # the server has closed before it has read all
        return "closed"
    if not text:
        return "closed"
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", text)
    return found[1].decode() if found else f"no answer but {text[:40]!r}"


# Slow clients


def slow_clients(plan: Plan) -> Tally:
    """Connections that dribble a byte at a time, send half or read nothing; others are served."""
    tally = Tally()
    lasting = 3.0 if plan.quick else 65.0
    with serving() as server, contextlib.ExitStack() as stack:
        server.ask()
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            for _ in range(plan.count)
        ]
        head = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        for number, one in enumerate(slow):
            if number % 3 == 0:
                one.sendall(head + b"Content-Length: 100000\r\n\r\n{")
            elif number % 3 == 1:
                one.sendall(b"GET /api/images/1/original HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        ends, asked, slowest = time.monotonic() + lasting, 0, 0.0
        while time.monotonic() < ends:
            for number, one in enumerate(slow):
                if number % 3 != 1 and select.select([], [one], [], 0)[1]:
                    with contextlib.suppress(OSError):
                        one.send(b"G" if number % 3 else b" ")
            began = time.monotonic()
            try:
                status = server.ask("/api/search?limit=5")
            except (OSError, http.client.HTTPException, ValueError) as exc:
                tally.add("wrong", f"an ordinary request fails: {exc!r}")
                status = 200
            if status != 200:
                tally.add("wrong", f"an ordinary request has the status {status}")
            asked, slowest = asked + 1, max(slowest, time.monotonic() - began)
            time.sleep(0.1)
        tally.tried = plan.count
        tally.note = f"{asked} ordinary requests meanwhile, the slowest in {slowest:.2f} s"
        server.examine(tally)
    return tally


# Uploads


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the beginning of a file with some bytes changed."""
    changed = bytearray(data[: rng.randint(1, max(1, len(data)))])
    for _ in range(rng.randint(0, 20) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def uploads(plan: Plan) -> Tally:
    """Search by hostile files: an answer, or a 4xx that says why."""
    tally, rng = Tally(), plan.random("uploads")
    odd = sorted(path for path in ODD.iterdir() if path.is_file())
    shared = sorted(path for path in HOSTILE.rglob("*") if path.is_file())
    told: dict[int, int] = {}
    with serving() as server:
        for number in range(plan.count):
            path = rng.choice(shared if shared and number % 2 else odd)
            data = path.read_bytes()
            if rng.random() < 0.5:
                data = mutated(data, rng)
            name = re.sub(r"[^ -~]|[\"\\]", "_", path.name)
            body = (
                b'--cut\r\nContent-Disposition: form-data; name="picture"; filename="'
                + name.encode()
                + b'"\r\n\r\n'
                + data
                + b"\r\n--cut--\r\n"
            )
            tally.tried += 1
            try:
                status = server.ask("/api/search", body, "multipart/form-data; boundary=cut")
            except (OSError, http.client.HTTPException, ValueError) as exc:
                tally.add("unaccounted", f"{path.name}: {exc!r}")
                continue
            told[status] = told.get(status, 0) + 1
            if status >= 500:
                tally.add("unaccounted", f"{path.name}: status {status}")
        server.examine(tally)
    where = "../shared/hostile and " if shared else ""
    tally.note = f"from {where}tests/odd: " + ", ".join(f"{k}: {told[k]}" for k in sorted(told))
    return tally
