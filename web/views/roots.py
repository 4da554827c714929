"""List, add and remove the folders of the library."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Blueprint, current_app

from fovea.indexer.scanning.changes import inside, root_of
from fovea.indexer.scanning.named import Overlap
from fovea.indexer.walking.subfolders import Completion, Subfolder, completed, starting_places
from fovea.search.clip.user_path import OTHER_COMPUTER, read_path, typed_path
from fovea.search.errors import FoveaError
from fovea.search.library.files import SEPARATOR, below
from fovea.search.library.library import Library
from fovea.search.library.paths import path_fields
from fovea.search.library.rows import Root
from fovea.search.maintenance.forget import forget_root
from fovea.search.query.columns import images_within
from fovea.web.contract.describe import Text, describe, json_body, text_of
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine, current_engine

blueprint = Blueprint("roots", __name__)

LONGEST = 4096  # characters of a path
PATIENCE_S = 10.0  # until a scan that was told to stop has released the library

# System folders, and those whose files a kernel makes up: nobody keeps photographs there.
WHOLE = frozenset(
    "/ /bin /boot /dev /etc /home /lib /lib64 /media /mnt /opt /private /proc /run /sbin "
    "/snap /srv /sys /usr /var /Applications /Library /System /Users /Volumes".split()
)
KERNEL = ("/dev/", "/proc/", "/sys/")

# Why a folder cannot be added, by code; the page translates them.
REFUSALS = {
    "forbidden": "cannot open {path!r}: permission denied",
    "library": "{path!r} is where fovea keeps its library; choose a folder of pictures",
    "missing": "{path!r} does not exist",
    "no_folder": "{path!r} is not a folder",
    "other_computer": "{path!r} is on another computer; name the folder where this one has its "
    "files",
    "relative": "{path!r} is not an absolute path; start at the root, such as /home/me/Pictures",
    "system": "{path!r} is a system folder; choose the folder with the pictures",
    "unreadable": "cannot open {path!r}: {reason}",
}

NEW_ROOT = {
    "type": "object",
    "properties": {
        "path": {
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST,
            "description": "Absolute, or from `~`; also in quotation marks or as a `file://` "
            "address, with spaces around it.",
        }
    },
    "required": ["path"],
    "additionalProperties": False,
}

TYPED = Text(
    "path", "The beginning of a path, as typed; without, where pictures often lie.", LONGEST
)


@blueprint.get("/api/roots")
@describe("List the folders", {200: "Roots"}, tag="Folders", problems=(503,))
def roots() -> dict[str, Any]:
    """Return each with its number of pictures. An offline folder is missing or not mounted."""
    engine = current_engine()
    roots = engine.library.roots_now()
    counts = engine.remembered("below roots", lambda: below_roots(engine))
    paths = {root.path for root in roots}
    return {"roots": [_fields(root, counts.get(root.path, 0), paths) for root in roots]}


@blueprint.post("/api/roots")
@describe(
    "Add a folder and index it",
    {201: "Root"},
    tag="Folders",
    body={"application/json": NEW_ROOT},
    problems=(415, 422, 503),
)
def add_root() -> tuple[dict[str, Any], int]:
    """Add a folder on the server's machine, and index its pictures in the background.

    One that is a root already is scanned again. One that lies in a root or around one is a root of
    its own: each file belongs to the innermost, and is indexed once.
    """
    path = _folder(_asked_path())
    library = current_engine().library
    current_engine().check_writable()
    root = library.add_root(os.path.realpath(path))
    current_app.extensions["fovea.scans"].start([Path(os.fsdecode(root.path))])
    paths = {other.path for other in library.roots()}
    return _fields(root, images_below(library, root.path), paths), 201


@blueprint.delete("/api/roots/<int:root_id>")
@describe("Remove a folder", {204: {}}, tag="Folders", problems=(409, 503))
def remove_root(root_id: int) -> tuple[str, int]:
    """Remove its pictures from the library. The files themselves are not touched."""
    library = current_engine().library
    if not any(root.id == root_id for root in library.roots()):
        raise Problem(404, "Not Found", f"there is no folder {root_id}")
    current_engine().check_writable()
    current_app.extensions["fovea.scans"].stop()
    forget_root(library, root_id, PATIENCE_S)
    return "", 204


@blueprint.get("/api/disk/folders")
@describe(
    "Complete the path of a folder",
    {200: "DiskFolders"},
    tag="Folders",
    parameters=(TYPED,),
    problems=(503,),
)
def folders() -> dict[str, Any]:
    """List folders on the server's machine that could be added, for a path that is being typed.

    After a slash, those in that folder; hidden ones only after a dot. At most 50.
    """
    engine = current_engine()
    text = TYPED.read()
    engine.check_writable()
    found = _completed(text) if text.strip() else starting_places()
    roots = {root.path for root in engine.library.roots()}
    own = os.path.realpath(os.fsencode(engine.folder))
    offered = [
        _subfolder(folder, roots)
        for folder in found.folders
        if not any(_is_left_out(path, own) for path in (folder.path, folder.leads_to) if path)
    ]
    return {"folders": offered, "has_more": found.has_more, "reason": found.reason}


def _completed(text: str) -> Completion:
    try:
        path = read_path(text)
    except FoveaError:
        return Completion(reason="missing")
    if not os.path.isabs(path):
        return Completion(reason="relative")
    bare = text.strip(" '\"“”")
    ends = path.endswith("/") or bare.endswith("/") or bare == "~"  # in that folder
    return completed(os.fsencode(path.rstrip("/") + "/" if ends else path))


def _is_left_out(path: bytes, own: bytes) -> bool:
    return inside(path, own) or os.fsdecode(path + b"/").startswith(KERNEL)


def _subfolder(folder: Subfolder, roots: Collection[bytes]) -> dict[str, Any]:
    fields = path_fields(os.fsdecode(folder.path))
    typed = fields["path"] if len(fields) == 1 else f"file://{quote(folder.path)}"
    meant = folder.leads_to or folder.path
    return {
        **fields,
        "typed": f"{typed.rstrip('/')}/",
        "leads_to": None if folder.leads_to is None else os.fsdecode(folder.leads_to),
        "in_library": root_of(meant, roots) is not None,
    }


def _asked_path() -> Path:
    """Read the absolute path in the request's body."""
    text = text_of("path", json_body().get("path"), LONGEST)
    try:
        path = Path(typed_path(text))
    except FoveaError as exc:
        if OTHER_COMPUTER in str(exc):
            raise _refusal("other_computer", Path(text.strip())) from exc
        raise _refusal("relative", Path(text)) from exc
    if not path.is_absolute():
        raise _refusal("relative", path)
    return path


def _folder(path: Path) -> Path:
    """Resolve the links of a folder. Raise ``Problem`` 422 if it cannot be added."""
    try:
        real = Path(os.path.realpath(path, strict=True))
        is_folder = real.is_dir()
    except FileNotFoundError as exc:
        raise _refusal("missing", path) from exc
    except PermissionError as exc:
        raise _refusal("forbidden", path) from exc
    except (OSError, ValueError, RuntimeError) as exc:
        reason = getattr(exc, "strerror", None) or "not a valid path"
        raise _refusal("unreadable", path, reason=reason) from exc
    if not is_folder:
        raise _refusal("no_folder", path)
    if real.is_relative_to(os.path.realpath(current_engine().folder)):
        raise _refusal("library", path)
    if _is_whole(real):
        raise _refusal("system", path)
    return real


def _is_whole(real: Path) -> bool:
    text = real.as_posix()
    return text in WHOLE or text.startswith(KERNEL) or real == Path(real.anchor)


def _refusal(name: str, path: Path, **params: str | int) -> Problem:
    params["path"] = str(path)
    detail = REFUSALS[name].format_map(params)
    return Problem(422, "Unprocessable Content", detail, code=f"root.{name}", params=params)


def _fields(root: Root, images: int, roots: Collection[bytes]) -> dict[str, Any]:
    overlap = Overlap.of(root.path, roots)
    return {
        "id": root.id,
        **path_fields(os.fsdecode(root.path)),
        "state": root.state,
        "images": images,
        "added_at": root.added_at,
        "scanned_at": root.scanned_at,
        "scan": current_app.extensions["fovea.scans"].turn_of(root.path),
        "inside": None if overlap.inside is None else os.fsdecode(overlap.inside),
        "around": [os.fsdecode(path) for path in overlap.around],
    }


def below_roots(engine: Engine) -> dict[bytes, int]:
    """Count the searchable images below each root, by its path."""
    library, columns = engine.library, engine.columns()
    roots = [root.path for root in library.roots()]
    if columns is None:
        return {root: images_below(library, root) for root in roots}
    inside = [
        (folder, number)
        for number, root in enumerate(roots)
        for folder, path in enumerate(columns.values.folders)
        if (path + SEPARATOR).startswith(below(root)[0])
    ]
    return dict(zip(roots, images_within(columns, inside, len(roots)), strict=True))


def images_below(library: Library, root: bytes) -> int:
    """Count the searchable images below a folder."""
    [(images,)] = library.rows(
        "SELECT count(DISTINCT image_id) FROM files "
        "WHERE state = 'indexed' AND path >= ? AND path < ?",
        below(root),
    )
    return int(images)
