"""The kinds of analysis, and what each must offer.

To add one, write a module with an ``ANALYSIS``, and a row in ``KINDS``.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

from PIL import Image

from fovea.search.errors import FoveaError

__all__ = ["KINDS", "VARIABLE", "Analysis", "analysis", "automatic", "chosen", "module_of"]

VARIABLE = "FOVEA_ANALYSES"  # the kinds that run after indexing, separated by spaces

# Kind -> the module that has it; in the order in which they run, the quick ones first.
KINDS: dict[str, str] = {
    "copies": "fovea.indexer.analysing.copies",
    "text": "fovea.indexer.analysing.text",
}


class Analysis(Protocol):
    """One kind of analysis. A module's ``ANALYSIS`` is one; loading it loads nothing heavy."""

    kind: str
    said: str  # what it finds, in a few words: "text in pictures"
    side: int  # pixels that the long side of a picture has at most when it is analysed
    memory: int  # bytes of a worker's address space; 0: as for decoding
    seconds: float  # for one picture; 0: as for decoding

    @property
    def version(self) -> str:
        """What does it, in which version; pictures are analysed again where it changes."""

    def missing(self) -> str | None:
        """Say in a few words how to get what it needs; None where that is installed."""

    def opened(self) -> Callable[[Image.Image], Any]:
        """In a worker, once: return what finds plain data (JSON) in an upright RGB picture."""

    def store(self, conn: sqlite3.Connection, image_id: int, result: Any) -> None:
        """Insert what was found; whatever was there of this kind has been removed."""


def analysis(kind: str) -> Analysis:
    """Return a kind of analysis by name. Raise ``FoveaError`` for an unknown one."""
    if kind not in KINDS:
        known = ", ".join(KINDS) or "none"
        raise FoveaError(f"no kind of analysis is called {kind!r}; there are: {known}")
    found: Analysis = import_module(module_of(kind)).ANALYSIS
    return found


def module_of(kind: str) -> str:
    """Return the name of the module that has a kind."""
    return KINDS[kind]


def chosen(kinds: Sequence[str]) -> list[Analysis]:
    """Return these kinds, or all, in the order in which they run."""
    wanted = [analysis(kind) for kind in kinds or KINDS]
    return sorted(wanted, key=lambda one: list(KINDS).index(one.kind))


def automatic() -> list[Analysis]:
    """Return the kinds that run by themselves after indexing: all, unless ``VARIABLE`` says."""
    named = os.environ.get(VARIABLE)
    return chosen(named.split() if named else ()) if named is None or named.split() else []
