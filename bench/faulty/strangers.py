"""Searches during indexing, requests that climb out of the library, and hostile files to index."""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from fovea.indexer.decoding.formats import EXTENSIONS, extension
from fovea.indexer.decoding.limits import Limits
from fovea.indexer.scanning.verify import verify
from fovea.search.library.library import Library

from .ground import CHECKOUT, PICTURES, Plan, Tally, bundled_library, draw, index, workplace
from .network import HOSTILE, ODD, PATIENCE_S, Server, mutated, serving

SEARCHERS = 32
ROUND = 150  # pictures that are added for one indexing run
QUERIES = (
    "/api/search?q=a+red+square&limit=5",
    "/api/search?q=name%3A1&limit=5",
    "/api/search?q=&limit=100",
    "/api/facets",
    "/api/status",
    "/api/images/1/thumbnail",
)


def searchers(plan: Plan) -> Tally:
    """Search from many threads while another process indexes more and more pictures."""
    tally = Tally()
    library, environment = bundled_library()
    counted, rounds = threading.Lock(), 0
    with serving() as server:
        server.ask()
        searching = threading.Event()
        searching.set()

        def search(number: int) -> None:
            rng = plan.random(f"searcher {number}")
            while searching.is_set():
                path = rng.choice(QUERIES)
                complaint = _complaint(server, path)
                with counted:
                    tally.tried += 1
                    if complaint:
                        tally.add("wrong", f"{path}: {complaint}")
                    if tally.tried >= plan.count:
                        searching.clear()

        with workplace() as place, ThreadPoolExecutor(SEARCHERS) as pool:
            jobs = [pool.submit(search, number) for number in range(SEARCHERS)]
            command = [sys.executable, "-m", "fovea", "index", "--library", str(library)]
            try:
                while searching.is_set():
                    for number in range(ROUND):
                        draw(
                            place / "more" / f"{rounds}-{number}.png",
                            10_000 + rounds * ROUND + number,
                        )
                    done = subprocess.run(
                        [*command, str(place / "more")],
                        cwd=CHECKOUT, env=environment, capture_output=True, text=True,
                    )  # fmt: skip
                    rounds += 1
                    if done.returncode:
                        tally.add("unaccounted", f"indexing: {done.stderr.strip()[-200:]}")
            finally:
                searching.clear()
                for job in jobs:
                    job.result()
        server.examine(tally)
    subprocess.run(
        [sys.executable, "-m", "fovea", "roots", "remove", str(place / "more")]
        + ["--library", str(library)],
        cwd=CHECKOUT, env=environment, capture_output=True,
    )  # fmt: skip
    tally.note = f"{SEARCHERS} at once, during {rounds} runs of {ROUND} new pictures"
    return tally


def _complaint(server: Server, path: str) -> str | None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            return f"status {answer.status}"
        if "q=&" in path and (total := json.loads(body)["total"]) < PICTURES:
            return f"{total} pictures"
    except (OSError, HTTPException, ValueError) as exc:
        return repr(exc)
    finally:
        connection.close()
    return None


# Requests that climb

UPS = tuple(
    "../ ..%2f %2e%2e/ %2e%2e%2f ..%5c ..\\ ....// %252e%252e%252f ..%c0%af ..;/ "
    "./../ //../ ..%00/ %uff0e%uff0e/".split()
)
IMAGE = "api/images/1/"
BEGINNINGS = ("", "assets/", "assets/x/", "api/", "api/images/", "api/exports/", "static/")
BEGINNINGS_OF_IMAGES = (IMAGE, f"{IMAGE}original/", f"{IMAGE}thumbnail/", f"{IMAGE}preview/")
ASKED = ("api/search?q=in:{}", "api/images/{}/original", "api/roots/{}", "api/facets?root={}")
SECRET = b"the secret beside the library"


def traversals(plan: Plan) -> Tally:
    """Ask for files outside the library by paths that climb, plain and encoded, and by a link."""
    tally, rng, told = Tally(), plan.random("traversals"), Counter[str]()
    library, _ = bundled_library()
    secret = library.parent / "secret.png"
    link = library.parent / "photos" / "0" / "link.png"
    secret.write_bytes(SECRET)
    try:
        link.symlink_to(secret)
        with serving() as server:
            server.ask()
            targets = (secret, library / "library.db", Path("/etc/passwd"), link)
            for _ in range(plan.count):
                target = str(rng.choice(targets))
                climb = "".join(rng.choices(UPS, k=1)) * rng.randint(1, 12)
                place = rng.choice((climb + target.lstrip("/"), target, f"file://{target}"))
                if rng.random() < 0.3:
                    path = rng.choice(ASKED).format(place)
                else:
                    path = rng.choice(BEGINNINGS + BEGINNINGS_OF_IMAGES) + place
                tally.tried += 1
                status, body = _raw(server.port, "/" + path)
                told[status] += 1
                if SECRET in body or b"root:x:0" in body or b"SQLite format 3" in body:
                    tally.add("wrong", f"/{path} shows the file")
                if not re.fullmatch(r"[1-4]\d\d|closed", status):
                    tally.add("unaccounted", f"{status} for /{path}")
            server.examine(tally)
    finally:
        link.unlink(missing_ok=True)
        secret.unlink(missing_ok=True)
    tally.note = ", ".join(f"{status}: {told[status]}" for status in sorted(told))
    return tally


def _raw(port: int, path: str) -> tuple[str, bytes]:
    """Return the status and the whole answer of a path as it is, which libraries would mend."""
    parts: list[bytes] = []
    head = (
        f"GET {path.replace(' ', '%20')} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    with contextlib.suppress(ConnectionError):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as one:
            one.sendall(head.encode("latin-1"))
            while part := one.recv(1 << 16):
                parts.append(part)
    answer = b"".join(parts)
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return (found[1].decode() if found else "closed"), answer


# Hostile files

SECONDS = 5.0  # for one file
GROUP = 400  # files of one run


def hostile(plan: Plan) -> Tally:
    """Index hostile, odd and broken files, as they are and damaged again; account for each."""
    tally, rng, states = Tally(), plan.random("hostile"), Counter[str]()
    found = [*ODD.iterdir(), *HOSTILE.rglob("*")]
    sources = [path for path in sorted(found) if path.is_file()]
    sources = [path for path in sources if extension(path.name.encode()) in EXTENSIONS]
    while tally.tried < plan.count:
        with workplace() as place:
            root = place / "photos"
            root.mkdir()
            _copies(root, sources, rng, min(GROUP, plan.count - tally.tried))
            draw(root / "sound.png", tally.tried)
            report = index(
                place / "library", root, alone=False, workers=2, limits=Limits(seconds=SECONDS)
            )
            parts = report.embedded, report.unchanged, report.moved, report.failed, report.skipped
            if report.found != sum(parts):
                tally.add("unaccounted", f"{report.found} found, but {parts}")
            with Library.open(place / "library") as library:
                checked = verify(library)
            states.update(str(file.state) for file in checked.files)
            named = {Path(str(file.path)).name: file for file in checked.files}
            for path in root.iterdir():
                tally.tried += path.name != "sound.png"
                if (file := named.get(path.name)) is None:
                    tally.add("unaccounted", f"{path.name} has no row")
                elif file.state == "failed" and not file.reason:
                    tally.add("unaccounted", f"{path.name} failed without a reason")
            if named["sound.png"].state != "indexed":
                tally.add("lost", f"a sound picture: {named['sound.png']}")
            for problem in checked.problems:
                tally.add("wrong", problem)
    where = "../shared/hostile and " if any(HOSTILE in path.parents for path in sources) else ""
    counts = ", ".join(f"{states[state]:,} {state}" for state in sorted(states))
    tally.note = f"from {where}tests/odd: {counts}"
    return tally


def _copies(root: Path, sources: list[Path], rng: random.Random, count: int) -> None:
    """Copy files below new names, every second one damaged."""
    for number in range(count):
        source = rng.choice(sources)
        ending = extension(source.name.encode()).decode()
        copy = root / f"{number:05d}{ending if ending.startswith('.') else '.' + ending}"
        if number % 2:
            copy.write_bytes(mutated(source.read_bytes(), rng))
        else:
            shutil.copyfile(source, copy)
