"""Measure how soon the page has what it asks for, on a large library.

    python bench/page.py [--images 1000000] [--library FOLDER] [--runs 20] [--only NAME]

``bench/serve.py --page`` does the same. The library is bench/large.py's, and no file of it is in
memory when the server starts. p50 and p99 are of requests that were not made before, where there
is more than one; "again" is the same request repeated; "changed" is one right after another process
has written to the library, so that nothing kept can be used.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.large import EVENTS, TOWNS, large_library
from fovea.search.library.library import Library
from fovea.search.query.likelihood import default_labels

CHECKOUT = Path(__file__).resolve().parents[1]

Paths = Iterator[str]  # of requests


def main() -> None:
    """Measure one server."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--library", type=Path, help="where the library is kept, made if missing")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", default="", help="requests whose names begin so, and no commands")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as place:
        library = large_library(options.library or Path(place), options.images)
        measure(library, options.runs, options.only)


def measure(library: Path, runs: int = 20, only: str = "") -> None:
    """Print the table."""
    if not only:
        commands(library)
    forget_files(library)
    with served(library) as server:
        print(f"{'server, cold start until it listens':<44}{server.started * 1000:>9.0f} ms")
        took, _ = server.timed("/")
        print(f"{'its first page':<44}{took:>9.0f} ms")
        server.until_settled()
        print(f"resident once all is loaded: {server.memory()}", flush=True)
        table(server, library, runs, only)
        print(f"resident at the end: {server.memory()}")
    with served(library) as server:
        took, _ = server.timed("/")
        line = f"{server.started * 1000:.0f} ms, its first page {took:.0f} ms"
        print(f"a start with all files in memory: {line}")


def table(server: "Server", library: Path, runs: int, only: str = "") -> None:
    """Time each kind of request; then each while the library changes all the time."""
    rows = []
    for name, make in requests(server).items():
        if not name.startswith(only):
            continue
        paths = make()
        found = [server.timed(next(paths)) for _ in range(runs)]
        path = next(paths)
        again = [server.timed(path)[0] for _ in range(runs)]
        rows.append((name, paths, [took for took, _ in found], again, found[-1][1]))
    print(f"\n{'':<36}{'p50':>8}{'p99':>8}{'again':>8}{'changed':>9}  pictures")
    for name, paths, fresh, again, total in rows:
        change(library)
        changed, _ = server.timed(next(paths))
        p50, p99 = np.percentile(fresh, (50, 99))
        line = f"{name:<36}{p50:>8.1f}{p99:>8.1f}{np.median(again[1:]):>8.1f}"
        print(f"{line}{changed:>9.0f}  {total}", flush=True)


def requests(server: "Server") -> dict[str, Callable[[], Paths]]:
    """Return what is asked, by name: each yields addresses, all different where they can be."""
    rng = random.Random(3)

    def day(first: int, last: int) -> str:
        return f"{rng.randint(first, last)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"

    def searches(make: Callable[[], str]) -> Callable[[], Paths]:
        return lambda: iter(lambda: f"/api/search?limit=60&q={quote(make())}", "")

    def always(path: str) -> Callable[[], Paths]:
        return lambda: iter(lambda: path, "")

    def deep(query: str) -> Callable[[], Paths]:
        def paths() -> Paths:
            while True:  # a cursor into a listing of this state of the library
                answer = server.get(f"/api/search?limit=1&q={quote(query)}")
                cursor = str(answer["cursor"]).split("-")[0]
                place = rng.randrange(answer["total"] // 2, answer["total"] - 100)
                yield f"/api/search?limit=60&cursor={cursor}-{place}"

        return paths

    def words() -> str:
        return " and ".join(rng.sample(default_labels(), 3))

    def suggestions(make: Callable[[], str]) -> Callable[[], Paths]:
        return lambda: iter(lambda: f"/api/suggest?q={quote(make())}", "")

    def begun(names: tuple[str, ...]) -> str:  # as somebody types it, after other words
        name = rng.choice(names)
        return f"{rng.choice(default_labels())} {name[: rng.randint(2, len(name))]}".lower()

    def shot() -> str:  # a day that has pictures
        return str(np.datetime64("2013-01-01") + 3 * rng.randrange(800))

    return {
        "the page": always("/"),
        "newest pictures": always("/api/search?limit=60&q="),
        "newest pictures, deep in the list": deep(""),
        "by name": always("/api/search?limit=60&q=sort:name"),
        "by name, deep in the list": deep("sort:name"),
        "menus (facets)": always("/api/facets"),
        "months (timeline)": always("/api/timeline"),
        "months, 60 % by date": lambda: iter(
            lambda: f"/api/timeline?q=after:{day(2014, 2015)}", ""
        ),
        "folders (roots)": always("/api/roots"),
        "status": always("/api/status"),
        "failures": always("/api/failures?state=failed&cursor="),
        "ignored files, near the end": always("/api/failures?state=skipped&cursor=1000000"),
        "60 % by date": searches(lambda: f"after:{day(2014, 2015)}"),
        "60 % by folder": searches(lambda: f"in:pictures -on:{day(2005, 2020)}"),
        "70 % by shape": searches(lambda: f"is:landscape -on:{day(2005, 2020)}"),
        "30 % by camera": searches(lambda: f"camera:canon -on:{day(2005, 2020)}"),
        "40 % by name": searches(lambda: f"name:img -on:{day(2005, 2020)}"),
        "70 % by size, by name": searches(lambda: f"size:>{rng.randint(3000, 3999)}kB sort:name"),
        "50 % by date and folder, by name": searches(
            lambda: f"in:pictures after:{day(2008, 2009)} sort:name"
        ),
        "0.1 % by day": searches(lambda: f"on:{shot()}"),
        "0.3 % by folder": searches(lambda: f"in:{shot()[:7]} -on:{shot()}"),
        "words": searches(words),
        "words, 60 % by date": searches(lambda: f"{words()} after:{day(2014, 2015)}"),
        "words, 57 % by folder": searches(lambda: f"{words()} in:Pictures"),
        "words, 0.1 % by day": searches(lambda: f"{words()} on:{shot()}"),
        "words, a year's folder": searches(lambda: f"{words()} in:pictures/2016"),
        "words, newest first": searches(lambda: f"{words()} sort:date"),
        "suggestions for a folder": suggestions(lambda: begun(EVENTS + TOWNS)),
        "suggestions for a camera": suggestions(lambda: begun(("canon", "nikon", "apple iphone"))),
        "suggestions for a date": suggestions(
            lambda: begun((f"july {rng.randint(2005, 2025)}", "last summer", f"{day(2005, 2025)}"))
        ),
        "suggestions for a file": suggestions(
            lambda: f"img_{rng.randrange(10**7):07d}"[: rng.randint(3, 11)]
        ),
        "suggestions in a folder, for another": suggestions(
            lambda: f"in:pictures/{rng.randint(2013, 2019)} {begun(EVENTS)}"
        ),
        "suggestions, a sentence": suggestions(words),
        "one picture": lambda: iter(lambda: f"/api/images/{rng.randrange(1, 10_000)}", ""),
    }


def commands(library: Path) -> None:
    """Time what people run in a terminal, each in a new process."""
    for arguments in (
        ["status"],
        ["search", "a dog on a beach"],
        ["search", "a dog on a beach after:2014-06"],
        ["search", "in:pictures/2016"],
    ):
        walls = []
        for _ in range(2):
            started = time.perf_counter()
            command = [sys.executable, "-m", "fovea", *arguments, "--library", str(library)]
            subprocess.run(
                command, cwd=CHECKOUT, env=environment(), check=True, capture_output=True
            )
            walls.append(time.perf_counter() - started)
        print(f"{'fovea ' + ' '.join(arguments):<44}{min(walls) * 1000:>9.0f} ms", flush=True)


def environment() -> dict[str, str]:
    return os.environ | {"FOVEA_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def change(library: Path) -> None:
    """Write to the library what changes nothing that is shown."""
    with Library.open(library) as opened:
        path = opened.rows("SELECT path FROM files ORDER BY id LIMIT 1")[0][0]
        opened.note([path], f"noted {time.time_ns()}")


def forget_files(library: Path) -> None:
    """Drop the library's files from the system's memory, where that can be asked for."""
    for file in library.iterdir():
        if hasattr(os, "posix_fadvise") and file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


class Server:
    """A running server, asked over one connection."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, started: float) -> None:
        self.process, self.started = process, started
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def timed(self, path: str) -> tuple[float, object]:
        """Return the milliseconds of a request, and the number of hits in its answer."""
        started = time.perf_counter()
        body = self._fetch(path)
        took = (time.perf_counter() - started) * 1000
        with contextlib.suppress(ValueError):
            found = json.loads(body)
            return took, found.get("total", len(found.get("suggestions", ())) or "")
        return took, ""

    def get(self, path: str) -> dict[str, int]:
        """Return a decoded answer."""
        document: dict[str, int] = json.loads(self._fetch(path))
        return document

    def _fetch(self, path: str) -> bytes:
        self._connection.request("GET", path)
        reply = self._connection.getresponse()
        body = reply.read()
        if reply.status != 200:
            raise SystemExit(f"{path}: {reply.status} {body[:200]!r}")
        return body

    def until_settled(self) -> None:
        """Wait until nothing is computed any more."""
        quiet = 0
        while quiet < 4:  # longer than the server waits before it reads what it keeps
            quiet = quiet + 1 if self._processor_s(1.0) < 0.05 else 0

    def _processor_s(self, wait_s: float) -> float:
        before = self._ticks()
        time.sleep(wait_s)
        return (self._ticks() - before) / os.sysconf("SC_CLK_TCK")

    def _ticks(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def memory(self) -> str:
        """Say how much memory the process takes, and how much it took at most."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = dict(re.findall(r"^(VmRSS|VmHWM|RssAnon):\s+(\d+) kB", text, re.MULTILINE))
        now, most, own = (int(found[name]) / 1e6 for name in ("VmRSS", "VmHWM", "RssAnon"))
        return f"{now:.2f} GB, {own:.2f} of it its own; {most:.2f} GB at most"


@contextlib.contextmanager
def served(library: Path) -> Iterator[Server]:
    """Run ``fovea serve``."""
    command = [sys.executable, "-m", "fovea", "serve", "--library", str(library)]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--port", "0", "--no-browser"],
        cwd=CHECKOUT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            raise SystemExit("the server did not start")
        port = int(line.split("http://", 1)[1].split("/")[0].rsplit(":", 1)[1])
        yield Server(process, port, time.perf_counter() - started)
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main()
