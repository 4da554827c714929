"""Try what disks, clocks, kills and strangers do to a library, and count what went wrong.

    python bench/faults.py [--quick] [--only NAME]... [--seed N] [--markdown]

Each row is one kind of fault: how often it was tried; pictures lost; answers or rows that were
wrong; and tracebacks, deaths, and files or processes left behind. All trials follow from the seed,
but for the moment at which a process is met. Most rows use a toy model, those of the command line
and the server the bundled one. What went wrong is listed after the table, and the exit code is 1.
"""

import argparse
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from bench.faulty.ground import Plan, Tally

HEAD = ("fault", "tried", "lost", "wrong", "unaccounted", "what counts as right")


@dataclass(frozen=True)
class Fault:
    """One row: where it is tried, how often, and what must be so."""

    module: str
    function: str
    full: int
    quick: int
    title: str
    right: str

    def run(self, plan: "Plan") -> "Tally":
        from importlib import import_module

        work: Callable[[Plan], Tally]
        work = getattr(import_module(f"bench.faulty.{self.module}"), self.function)
        return work(plan)


FAULTS = {
    "kills": Fault(
        "kills", "kills", 300, 4,
        "SIGKILL while indexing, switching the model, removing a root",
        "`verify` finds nothing, no picture leaves the answers, the next run completes all; a "
        "root is there whole or not at all; no worker survives",
    ),
    "injected": Fault(
        "injected", "injected", 0, 8,
        "EIO, ENOSPC or death at every write, fsync and rename of a run, commits included",
        "one line, or a run without its snapshot; nothing lost or left behind; the next run "
        "completes all",
    ),
    "snapshots": Fault(
        "snapshots", "snapshots", 1200, 40,
        "snapshots with flipped bits, swapped or zeroed pieces, cut, longer, or outdated",
        "the answer that the database gives",
    ),
    "in-use": Fault(
        "snapshots", "snapshots_in_use", 60, 4,
        "snapshots truncated, overwritten, removed or replaced below a process that uses them",
        "the process lives, and answers as before",
    ),
    "databases": Fault(
        "databases", "databases", 500, 4,
        "databases with flipped bits, pages swapped, zeroed, scrambled or missing",
        "each command and route answers, or ends with one line (503); `verify` complains wherever "
        "`integrity_check` does; where it does, no search has fewer hits without a word",
    ),
    "disk-full": Fault(
        "disks", "disks_full", 24, 3,
        "a disk that is full at some size, twice, then has room",
        "one line that says so; nothing lost or left behind; then a complete run",
    ),
    "two-indexers": Fault(
        "disks", "two_indexers", 24, 1,
        "two runs started at once",
        "one indexes, the other waits or says so in a line; every picture once",
    ),
    "vanishing": Fault(
        "disks", "roots_vanishing", 40, 2,
        "a root, or a folder in it, renamed away during a run",
        "no picture of a root that is away is lost; all are right when it is back",
    ),
    "replaced": Fault(
        "disks", "files_replaced", 3400, 100,
        "files replaced or rewritten while they are read",
        "in the end each file has its own content's embedding; none was mixed up",
    ),
    "memory": Fault(
        "disks", "memory", 10_000, 300,
        "many files in one run",
        "all are shown; memory grows by less than 64 MB after the first tenth",
    ),
    "garbage": Fault(
        "network", "raw_garbage", 5000, 100,
        "garbage on raw sockets",
        "4xx, 501 or 505, an answer, or the end of the connection; no traceback; others are "
        "answered",
    ),
    "slow": Fault(
        "network", "slow_clients", 120, 12,
        "clients that dribble, send half, or read nothing",
        "ordinary requests are answered meanwhile",
    ),
    "searchers": Fault(
        "strangers", "searchers", 11_000, 60,
        "requests while another process indexes",
        "each is answered with 200, and none shows fewer pictures than there were at first",
    ),
    "traversals": Fault(
        "strangers", "traversals", 600, 60,
        "requests for files outside the library, by paths that climb and by a link",
        "4xx, or an answer without the file",
    ),
    "hostile": Fault(
        "strangers", "hostile", 6400, 40,
        "hostile, odd and broken files in an indexed folder",
        "each has a row, with its reason if it failed; a sound picture among them is searchable",
    ),
    "uploads": Fault(
        "network", "uploads", 600, 8,
        "hostile and broken files as pictures to search by",
        "an answer, or a 4xx that says why; no traceback, no death",
    ),
}  # fmt: skip


def main() -> int:
    """Try the faults that are asked for; print the table; return 1 if anything went wrong."""
    options = arguments()
    from bench.faulty.ground import Plan, Tally

    found: dict[str, Tally] = {}
    for name in options.only or FAULTS:
        fault, began = FAULTS[name], time.monotonic()
        plan = Plan(fault.quick if options.quick else fault.full, options.seed, options.quick)
        print(f"{name} ...", end="", file=sys.stderr, flush=True)
        found[name] = fault.run(plan)
        print(f" {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    lines = markdown(found, options.seed) if options.markdown else table(found)
    print("\n".join(lines), flush=True)
    for name, tally in found.items():
        for example in tally.examples[: options.examples]:
            print(f"{name}: {example}", file=sys.stderr)
    return int(any(tally.lost or tally.wrong or tally.unaccounted for tally in found.values()))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Names: " + ", ".join(FAULTS) + ".",
    )
    parser.add_argument("--quick", action="store_true", help="a few of each, in about a minute")
    parser.add_argument("--only", action="append", choices=list(FAULTS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--markdown", action="store_true", help="as docs/reliability.md has it")
    parser.add_argument(
        "--examples", type=int, default=3, metavar="N", help="of what went wrong (default: 3)"
    )
    return parser.parse_args()


def table(found: "dict[str, Tally]") -> list[str]:
    """The rows as text."""
    lines = [f"{'':<14}{'tried':>8}{'lost':>8}{'wrong':>8}{'unaccounted':>13}"]
    for name, tally in found.items():
        numbers = f"{tally.tried:>8,}{tally.lost:>8,}{tally.wrong:>8,}{tally.unaccounted:>13,}"
        lines.append(f"{name:<14}{numbers}  {tally.note}".rstrip())
    return lines


def markdown(found: "dict[str, Tally]", seed: int) -> list[str]:
    """The rows as a table of Markdown, with what counts as right."""
    system = f"{platform.system()}, Python {platform.python_version()}, SQLite"
    cores = os.cpu_count()
    lines = [
        f"`python bench/faults.py --markdown --seed {seed}`: {system} {sqlite3.sqlite_version}, "
        f"{cores} cores.",
        "",
        f"| {' | '.join(HEAD)} |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, tally in found.items():
        fault = FAULTS[name]
        title = f"{fault.title} ({tally.note})" if tally.note else fault.title
        numbers = [tally.tried, tally.lost, tally.wrong, tally.unaccounted]
        cells = [title, *(f"{number:,}" for number in numbers), fault.right]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
