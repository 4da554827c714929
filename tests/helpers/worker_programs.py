"""Processes that tests change, by code that runs in them first or instead of the usual."""

import sys
import time
from collections.abc import Callable

from fovea.indexer.workers import host

Command = Callable[..., list[str]]


def running_first(code: str, command: Command = host.command) -> Command:
    """Return what makes command lines as ``host.command`` does, of programs with more code."""

    def changed(module: str, *arguments: str) -> list[str]:
        words = command(module, *arguments)
        place = words.index("-c") + 1
        setting, start = words[place].split("; from ", 1)
        words[place] = f"{setting}\n{code}\nfrom {start}"
        return words

    return changed


# One that says what it is told to, then waits to be told to end.
TALKING = """
import json, sys
asked = json.loads(sys.stdin.readline())
print("not JSON", flush=True)
print("[1]", flush=True)
print(json.dumps({"progress": {"found": 10, "done": 4, "embedded": 2, "failed": 1,
                               "skipped": 1, "rate": 2.0, "walking": False}}), flush=True)
told = sys.stdin.readline()
print(json.dumps({"report": {"found": 10, "embedded": 3, "unchanged": 0, "moved": 0,
                             "deleted": 0, "failed": 1, "skipped": 1, "stopped": told != "",
                             "unreached": []}}))
"""


# What the process runs in these tests: the true one, but with a toy for a model.
INDEXING = """
import sys; sys.path[:] = sys.argv[1:]
from pathlib import Path
from types import SimpleNamespace
import fovea.search.models.resolve
from toys import TolerantEncoder
encoder = TolerantEncoder()
toy = SimpleNamespace(
    name="colour", identity=encoder.identity, dim=3, source="test", folder=Path("no"),
    preprocess=encoder.preprocess, load=lambda **options: encoder,
)
fovea.search.models.resolve.resolve_model = lambda *asked, **options: toy
from fovea.web.jobs.index_worker import main; main()
"""


def running_instead(program):
    """What makes commands, but of a program of the test's own."""
    return lambda module, *arguments: [sys.executable, "-c", program, *arguments, *sys.path]


def until(condition, seconds=60):
    """Wait for something to become true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it has not come true")
