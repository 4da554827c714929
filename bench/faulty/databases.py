"""Damaged databases: every command and page answers rightly, or ends with one clear line."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from fovea.cli import cli
from fovea.search.library.connection import reader
from fovea.web.app import create_app

from .ground import Plan, Started, Tally, brief, bundled_library, child, workplace

ROUTES = (
    "/",
    "/health",
    "/api/status",
    "/api/roots",
    "/api/facets",
    "/api/failures",
    "/api/search?q=something+red&limit=100",
    "/api/search?limit=100",
    "/api/images/1",
    "/api/images/7/similar",
    "/api/images/9/original",
)
SLOW_ROUTES = ("/api/images/11/thumbnail",)  # starts a process that decodes
RARELY = 8  # databases between two that are indexed and asked for thumbnails
AT_ONCE = 2  # databases
Reply = dict[str, Any]  # code: exit code or status; hits: their number; problem: if it is a crash
Damage = Callable[[bytes, int, random.Random], bytes]


def flipped(data: bytes, page: int, rng: random.Random) -> bytes:
    """One bit is another."""
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def in_a_used_page(data: bytes, page: int, rng: random.Random) -> bytes:
    """One bit is another, in the beginning of a page: its header and its table of cells."""
    changed = bytearray(data)
    start = rng.randrange(len(data) // page) * page
    changed[start + rng.randrange(64)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def swapped(data: bytes, page: int, rng: random.Random) -> bytes:
    """Two pages have changed places."""
    first, second = sorted(rng.sample(range(1, len(data) // page), 2))
    pieces = [data[n * page : (n + 1) * page] for n in range(len(data) // page)]
    pieces[first], pieces[second] = pieces[second], pieces[first]
    return b"".join(pieces)


def zeroed(data: bytes, page: int, rng: random.Random) -> bytes:
    """A page contains zeros."""
    start = rng.randrange(len(data) // page) * page
    return data[:start] + bytes(page) + data[start + page :]


def scrambled(data: bytes, page: int, rng: random.Random) -> bytes:
    """A page contains anything."""
    start = rng.randrange(len(data) // page) * page
    return data[:start] + rng.randbytes(page) + data[start + page :]


def cut(data: bytes, page: int, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data))]


DAMAGES: tuple[Damage, ...] = (flipped, flipped, in_a_used_page, swapped, zeroed, scrambled, cut)


def databases(plan: Plan) -> Tally:
    """Damage copies of a library's database, and ask each command and route."""
    import torch  # noqa: F401  # here, so that no forked process has to

    tally, rng = Tally(), plan.random("databases")
    told = {"damaged": 0, "commands": 0}
    with workplace() as place:
        library, environment = bundled_library()
        os.environ.update(environment)
        root = library.parent / "photos"
        whole = (library / "library.db").read_bytes()
        page = int.from_bytes(whole[16:18], "big") or 4096
        right = child(lambda: _asked(_copied(library, place / "copy"), root, True))
        assert right.value, right
        running: deque[_Asked] = deque()
        for number in range(plan.count):
            damage, seed = rng.choice(DAMAGES), rng.getrandbits(40)
            copy = _copied(library, place / f"copy-{number % (AT_ONCE + 1)}")
            (copy / "library.db").write_bytes(damage(whole, page, random.Random(seed)))
            complaint = integrity(copy / "library.db")
            work = Started(partial(_asked, copy, root, number % RARELY == 0))
            running.append(_Asked(work, complaint, f"{damage.__name__} {seed}"))
            told["damaged"] += complaint is not None
            while len(running) >= AT_ONCE or (running and number == plan.count - 1):
                told["commands"] += _settle(running.popleft(), right.value, tally)
    tally.note = (
        f"integrity_check finds {told['damaged']}; {told['commands']} commands and requests"
    )
    return tally


@dataclass(frozen=True)
class _Asked:
    """A process that asks a damaged database, and what SQLite says of that."""

    work: Started
    complaint: str | None
    where: str


def _settle(asked: _Asked, right: dict[str, Reply], tally: Tally) -> int:
    """Wait for the replies, and judge them; return their number."""
    ended = asked.work.ended()
    tally.tried += 1
    if ended.value is None:
        tally.add("unaccounted", f"{asked.where}: {ended.failure or ended.error}")
        return 0
    _compare(ended.value, right, asked.complaint, asked.where, tally)
    return len(ended.value)


def _copied(library: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(library, to)
    return to


def integrity(path: Path) -> str | None:
    """What SQLite's own full check finds; None if nothing."""
    conn = reader(path)
    try:
        conn.text_factory = bytes  # messages may quote damaged text
        found = [bytes(row[0]) for row in conn.execute("PRAGMA integrity_check(1)")]
        return None if found == [b"ok"] else found[0].decode(errors="replace")
    except (sqlite3.Error, UnicodeDecodeError) as exc:
        return str(exc)
    finally:
        conn.close()


def _asked(library: Path, root: Path, everything: bool) -> dict[str, Reply]:
    """Ask every command and route once."""
    known = str(root / "0" / "0.png")
    commands = [
        ["status", "--json"],
        ["verify", "--json"],
        ["roots", "list"],
        ["search", "something red", "-k", "100", "--json"],
        ["search", "after:1990", "-k", "100", "--json"],
        ["search", "name:7", "-k", "100", "--json"],
        ["similar", known, "-k", "100", "--json"],
    ]
    found = {" ".join(command[:2]): _command(command, library) for command in commands}
    found |= _requests(library, ROUTES + SLOW_ROUTES if everything else ROUTES)
    if everything:
        found["index"] = _command(["index", "--json"], library)
    found["roots remove"] = _command(["roots", "remove", str(root)], library)
    return found


def _command(command: list[str], library: Path) -> Reply:
    result = CliRunner().invoke(cli, [*command, "--library", str(library)])
    told: Reply = {"code": result.exit_code, "hits": None, "problem": None}
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        told["problem"] = brief(result.exception)
    elif "Traceback" in result.stderr:
        told["problem"] = result.stderr.strip().splitlines()[-1]
    elif result.exit_code and command[0] != "verify":
        lines = result.stderr.strip().splitlines()
        if not lines or not lines[-1].startswith("Error: "):
            told["problem"] = f"exit code {result.exit_code} without a clear line: {lines[-2:]}"
    if command[0] in ("search", "similar") and not result.exit_code and not told["problem"]:
        told["hits"] = len(json.loads(result.stdout)["hits"])
        told["warned"] = "damaged" in result.stderr
    return told


def _requests(library: Path, routes: tuple[str, ...]) -> dict[str, Reply]:
    try:
        app = create_app(library, testing=True)
    except Exception as exc:
        if type(exc).__module__ == "fovea.search.errors":  # one line, before anything is served
            return {}
        return {"create_app": {"code": 500, "hits": None, "problem": brief(exc)}}
    found: dict[str, Reply] = {}
    try:
        client = app.test_client()
        for route in routes:
            answer = client.get(route, headers={"Host": "localhost"})
            body = answer.get_json(silent=True) or {}
            crashed = answer.status_code >= 500 and body.get("code", "unexpected") == "unexpected"
            crashed = crashed and answer.status_code != 503
            told: Reply = {"code": answer.status_code, "hits": None, "problem": None}
            told["problem"] = f"status {answer.status_code}" if crashed else None
            if route.startswith("/api/search") and answer.status_code == 200:
                told["hits"] = len(body["hits"])
            found[f"GET {route}"] = told
    finally:
        app.extensions["fovea"].close()
    return found


def _compare(
    found: dict[str, Reply],
    right: dict[str, Reply],
    complaint: str | None,
    where: str,
    tally: Tally,
) -> None:
    if complaint and not found["verify --json"]["code"]:
        tally.add("wrong", f"{where}: verify says ok; integrity_check: {complaint}")
    for name, told in found.items():
        if told["problem"]:
            tally.add("unaccounted", f"{where}: {name}: {told['problem']}")
        expected = right.get(name, {}).get("hits")
        if expected is None or told["hits"] is None or not complaint or told.get("warned"):
            continue
        if told["hits"] < expected:
            tally.add("lost", f"{where}: {name}: {told['hits']} of {expected} hits in silence")
