"""What the commands about embeddings share."""

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fovea.cli.output import talk
from fovea.search.errors import FoveaError
from fovea.search.library.paths import printable_name

if TYPE_CHECKING:
    from fovea.search.models.info import ModelInfo

PROBLEMS = 20  # printed, of each kind


def check_here(folder: Path) -> None:
    """Raise ``FoveaError`` for a URL, of which ``Path`` has made a folder's name."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(folder))
    if match is not None:
        raise FoveaError(
            f"embeddings in files are in a folder of this machine, not at {match.group(1)}://; "
            "name a folder, and copy it from or to there"
        )


def manifest_model(about: dict[str, Any], place: Path) -> "ModelInfo":
    """Return the model of a manifest, if this machine has it.

    A manifest may be anybody's: what it names is neither fetched nor opened, only its identity
    counts. Raise ``FoveaError``, with the option that names the model, if it is not here.
    """
    from fovea.indexer.decoding.limits import one_line
    from fovea.search.models.installed import models_on_disk

    model = about["model"]
    for info in models_on_disk():
        if info.identity == model["identity"]:
            return info
    source = model["source"]
    name = one_line(source if os.path.isabs(source) else model["name"], 200)
    raise FoveaError(
        f"{printable_name(place)} holds embeddings of a model that is not among those of this "
        f"machine; if you trust it, name it: --model {shlex.quote(name)}"
    )


def tell_all(found: Any, said: Callable[[Any], str], what: str) -> None:
    """Print the first of some remarks, and how many more there are."""
    for one in found[:PROBLEMS]:
        talk(said(one))
    if len(found) > PROBLEMS:
        talk(f"and {len(found) - PROBLEMS:,} more {what}")
