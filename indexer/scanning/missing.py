"""Decide what became of the files that the library knows and a walk did not find."""

import errno
import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from fovea.indexer.walking.ignore import BadIgnoreFile, Ignore
from fovea.indexer.walking.walk import is_empty
from fovea.search.library.library import Library
from fovea.search.library.rows import Root

from .changes import LostFile, Survey, inside

HANDFUL = 5  # so many files may disappear from a root at once, or
SHARE = 0.1  # this share of it, without a confirmation
DELETED_REASON = "deleted"
MOVED_REASON = "moved or renamed"
LINKED_REASON = "not a file: its folder is a symbolic link"

EntryKind = Literal["folder", "link", "file", "nothing"]  # "file": anything but the others
Fate = Literal["here", "linked", "gone"]  # linked: one of its folders is a symbolic link now


@dataclass(slots=True)
class Verdict:
    """What to write about the lost files."""

    moved: list[bytes] = field(default_factory=list)  # the same run found their content elsewhere
    deleted: list[bytes] = field(default_factory=list)
    skipped: list[LostFile] = field(default_factory=list)
    held: list[LostFile] = field(default_factory=list)  # too many at once: they stay searchable

    @property
    def passed_over(self) -> int:
        """How many pictures are not searchable any more though they are there."""
        return sum(entry.row.state == "indexed" for entry in self.skipped)


def lost_files(survey: Survey) -> list[LostFile]:
    """Return the files of ``survey.known`` that its walk, now over, did not find or take.

    Roots that are offline by now or whose ignore file cannot be used are left out, and folders that
    could not or cannot be listed.
    """
    closed = [entry.path for entry in survey.closed]
    roots = sorted(survey.roots, key=lambda root: len(root.path), reverse=True)
    rules = _look_again(survey, roots)
    found = [entry for entry in survey.refused if entry.root_id in rules]
    listing = cache(_listing)
    for path, row in survey.known.files.items():
        if row.state == "missing" or any(inside(path, folder) for folder in closed):
            continue
        root = next(root for root in roots if inside(path, root.path))
        if root.id not in rules:
            continue
        fate = _fate(path, root.path, listing)
        if fate == "gone":
            found.append(LostFile(path, root.id, row, None))
        elif fate is not None and row.state != "skipped":
            linked = LINKED_REASON if fate == "linked" else None
            if reason := linked or _covered(path, root.path, rules[root.id]):
                found.append(LostFile(path, root.id, row, reason))
    return found


def _covered(path: bytes, root: bytes, rules: Ignore) -> str | None:
    """Return why a path is ignored now; None also where that cannot be known."""
    try:
        return rules.covers(path, root)
    except (BadIgnoreFile, OSError):
        return None


def _look_again(survey: Survey, roots: Sequence[Root]) -> dict[int, Ignore]:
    """Mark the roots that went offline after their walk: embedding may have taken hours.

    Return the rules of the others, by root id.
    """
    rules = {}
    for root in roots:
        if root.id in survey.offline or root.id in survey.barred:
            continue
        try:
            if is_empty(root.path):
                survey.offline[root.id] = "the folder is empty"
            else:
                rules[root.id] = Ignore.for_root(root.path, survey.ignore)
        except BadIgnoreFile as exc:
            survey.barred[root.id] = exc
        except OSError as exc:
            survey.offline[root.id] = exc.strerror or type(exc).__name__
    return rules


def _fate(
    path: bytes, root: bytes, listing: Callable[[bytes], dict[bytes, EntryKind] | None]
) -> Fate | None:
    """Say what became of a path below a root; None if that cannot be known now.

    A name is there only as it is listed: where case does not matter to a file system, looking a
    renamed file's old name up would find the new one.
    """
    folder = root
    *folders, name = path[len(root.rstrip(b"/")) + 1 :].split(b"/")
    for part in folders:
        listed = listing(folder)
        if listed is None:
            return None
        kind = listed.get(part, "nothing")
        if kind != "folder":
            return "linked" if kind == "link" else "gone"
        folder = os.path.join(folder, part)
    listed = listing(folder)
    if listed is None:
        return None
    return "gone" if listed.get(name, "nothing") in ("folder", "nothing") else "here"


def _listing(folder: bytes) -> dict[bytes, EntryKind] | None:
    """List a folder's names with what each is; None if it cannot be listed now."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: _kind_of(entry) for entry in entries}
    except OSError as exc:
        return {} if exc.errno in (errno.ENOENT, errno.ENOTDIR) else None


def _kind_of(entry: "os.DirEntry[bytes]") -> EntryKind:
    if entry.is_symlink():
        return "link"
    return "folder" if entry.is_dir(follow_symlinks=False) else "file"


def judge(
    library: Library,
    survey: Survey,
    found: Sequence[LostFile],
    gained: Collection[int],
    confirmed: bool,
) -> Verdict:
    """Sort lost files into those moved, deleted, ignored and held back.

    ``gained`` are images that got a new file in this run. Too many losses at once are held back
    unless ``confirmed``, but only of pictures that would stop being searchable: not those that
    never were, nor those that another root shows as well. Files that a pattern covers are never
    held back: somebody wrote it.
    """
    verdict = Verdict()
    elsewhere = _shown_elsewhere(library, found)
    refused = {entry.path for entry in survey.refused}
    doubtful: dict[int, list[LostFile]] = {}
    for entry in found:
        moved = entry.row.image_id in gained
        shown = (
            entry.row.state == "indexed" and (entry.row.image_id, entry.root_id) not in elsewhere
        )
        if _is_lost(entry) and shown and not moved:
            doubtful.setdefault(entry.root_id, []).append(entry)
        elif entry.refusal is not None:
            verdict.skipped.append(entry)
        else:
            (verdict.moved if moved else verdict.deleted).append(entry.path)
    for root_id, entries in doubtful.items():
        remaining = survey.totals.get(root_id, 0) - sum(entry.path in refused for entry in entries)
        if not confirmed and too_many(len(entries), remaining):
            verdict.held += entries
        else:
            verdict.deleted += [entry.path for entry in entries if entry.refusal is None]
            verdict.skipped += [entry for entry in entries if entry.refusal is not None]
    return verdict


def _is_lost(entry: LostFile) -> bool:
    """Whether a file disappeared, rather than being ignored."""
    return entry.refusal is None or entry.refusal.startswith("not a file")


def _shown_elsewhere(library: Library, found: Sequence[LostFile]) -> set[tuple[int | None, int]]:
    """Return (image, root) where the image has a file in another root that is not lost."""
    lost = {entry.path for entry in found}
    roots = {entry.root_id for entry in found}
    images = {entry.row.image_id for entry in found if entry.row.image_id}
    if not images:
        return set()
    rows = library.rows(
        "SELECT image_id, path, root_id FROM files WHERE state = 'indexed' "
        "AND image_id IN (SELECT value FROM json_each(?))",
        [json.dumps(sorted(images))],
    )
    homes: dict[int, set[int]] = {}
    for image_id, path, root_id in rows:
        if path not in lost:
            homes.setdefault(image_id, set()).add(root_id)
    return {
        (image_id, root_id)
        for root_id in roots
        for image_id, others in homes.items()
        if others - {root_id}
    }


def too_many(lost: int, remaining: int) -> bool:
    """Say whether so many files disappeared from a root that a person should confirm it."""
    return lost > HANDFUL and lost > SHARE * (lost + remaining)
