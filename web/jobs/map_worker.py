"""The process that lays out the library's map for the server, at low priority.

Stopped or killed at any moment, it leaves the map that was kept before.
"""

import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from fovea.indexer.workers.host import step_back

from .process import NICE, Pace, asked, say


def main() -> None:
    """Lay out the map of the ``library`` that the server names."""
    step_back(NICE)
    wanted = asked(lambda is_asked: os._exit(1))  # there is nothing to be finished
    from fovea.search.errors import FoveaError
    from fovea.search.library.library import Library
    from fovea.search.mapping.build import MapProgress, build_map
    from fovea.search.mapping.labels import labels_of

    pace, steps = Pace(), set()

    def show(now: MapProgress) -> None:
        if now.step not in steps or pace.is_time():
            steps.add(now.step)
            say("progress", asdict(now))

    folder = Path(wanted["library"])
    try:
        with Library.open(folder) as library:
            made = build_map(library, background=lambda: labels_of(library), progress=show)
        say("report", {"pictures": len(made)})
    except FoveaError as exc:
        say("error", {"message": str(exc)})
        sys.exit(1)
    except Exception as exc:  # a bug, or what a library raises: the page must hear of it, too
        from fovea.search.library.damage import explained
        from fovea.search.library.library import DATABASE

        damage = explained(folder / DATABASE, exc)
        if damage is None:
            traceback.print_exc()  # for the server's log
        message = f"the map failed ({type(exc).__name__}); the server's log says more"
        say("error", {"message": str(damage or message)})
        sys.exit(1)
