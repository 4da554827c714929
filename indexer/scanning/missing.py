"""Decide what became of the files that the library knows and a walk did not find."""

import errno
import json
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple

from fovea.indexer.walking.ignore import BadIgnoreFile, Ignore
from fovea.indexer.walking.walk import is_empty
from fovea.search.library.facts.stamps import stamps_of
from fovea.search.library.library import Library
from fovea.search.library.rows import Root

from .changes import LostFile, Survey, covers, inside

HANDFUL = 5  # so many files may disappear from a root at once, or
SHARE = 0.1  # this share of it, without a confirmation
DELETED_REASON = "deleted"
MOVED_REASON = "moved or renamed"
LINKED_REASON = "not a file: its folder is a symbolic link"

EntryKind = Literal["folder", "link", "file", "nothing"]  # "file": anything but the others
Fate = Literal["here", "linked", "gone"]  # linked: one of its folders is a symbolic link now
Listing = Callable[[bytes], dict[bytes, EntryKind] | None]

SETTLED_KEY = "settled_file:"  # and a root's id: the last file when a run there last ended whole


@dataclass(slots=True)
class Verdict:
    """What to write about the lost files."""

    moved: list[bytes] = field(default_factory=list)  # their content has appeared elsewhere
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
    closed = frozenset(entry.path for entry in survey.closed)
    roots = sorted(survey.roots, key=lambda root: len(root.path), reverse=True)
    rules = _look_again(survey, roots)
    found = [entry for entry in survey.refused if entry.root_id in rules]
    listing: Listing = cache(_listing)
    for path, row in survey.known.files.items():
        if row.state == "missing" or covers(closed, path):
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
                rules[root.id] = survey.rules(root)
        except BadIgnoreFile as exc:
            survey.barred[root.id] = exc
        except OSError as exc:
            survey.offline[root.id] = exc.strerror or type(exc).__name__
    return rules


def _fate(path: bytes, root: bytes, listing: Listing) -> Fate | None:
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


class _Proof(NamedTuple):
    """A file that shows an image and is there."""

    image_id: int
    is_new: bool  # since a run last ended whole in its root


def judge(
    library: Library,
    survey: Survey,
    found: Sequence[LostFile],
    gained: Collection[int],
    confirmed: bool,
    would_show: Mapping[bytes, int | None] | None = None,
) -> Verdict:
    """Sort lost files into those moved, deleted, ignored and held back.

    ``gained`` are images that got a new file in this run; one that an interrupted run has added
    counts as well. Too many losses at once are held back unless ``confirmed``, but only of pictures
    that would leave the answers: not those that never were in them, nor those that a file that is
    there still shows, whichever run found it and wherever it lies. Files that a pattern covers are
    never held back: somebody wrote it. ``would_show`` is what a dry run has not written: the
    images of files that it read, by path.
    """
    verdict = Verdict()
    proofs = list(_still_shown(library, survey, found, would_show or {}))
    kept = {proof.image_id for proof in proofs}
    appeared = {proof.image_id for proof in proofs if proof.is_new}.union(gained) & kept
    refused = {entry.path for entry in survey.refused}
    doubtful: dict[int, list[LostFile]] = {}
    for entry in found:
        if _is_lost(entry) and entry.row.state == "indexed" and entry.row.image_id not in kept:
            doubtful.setdefault(entry.root_id, []).append(entry)
        elif entry.refusal is not None:
            verdict.skipped.append(entry)
        else:
            moved = entry.row.image_id in appeared
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


def _still_shown(
    library: Library,
    survey: Survey,
    found: Sequence[LostFile],
    would_show: Mapping[bytes, int | None],
) -> Iterator[_Proof]:
    """Yield files that show the lost files' images and are there.

    They must be listed now, in a root that is not offline. A file that this walk found has been
    compared with its row, or read; any other, such as one below an ignore file that cannot be used,
    must be as large and as old as its row says.
    """
    lost = {entry.path for entry in found}
    images = {entry.row.image_id for entry in found if entry.row.image_id is not None}
    if not images:
        return
    walked = {root.id for root in survey.roots}
    offline = {*survey.offline, *(key for key in library.offline() if key not in walked)}
    roots = {root.id: root for root in (*library.roots(), *survey.roots)}
    innermost = sorted(roots.values(), key=lambda root: len(root.path), reverse=True)
    listing: Listing = cache(_listing)
    closed = frozenset(entry.path for entry in survey.closed if entry.rules is None)
    back = set(survey.present)

    def is_there(path: bytes, size: int, mtime_ns: int) -> bool:
        root = next((root for root in innermost if inside(path, root.path)), None)
        if root is None or root.id in offline or covers(closed, path):
            return False
        if _fate(path, root.path, listing) != "here":
            return False
        if root.id in survey.walked and path not in survey.known.files:
            return True
        return _is_unchanged(path, size, mtime_ns)

    rows = library.rows(
        "SELECT id, root_id, image_id, path, size, mtime_ns, state, reason FROM files "
        "WHERE image_id IN (SELECT value FROM json_each(?))",
        [json.dumps(sorted(images))],
    )
    settled = _settled(library)
    for row_id, root_id, image_id, path, size, mtime_ns, state, reason in rows:
        if path in lost or would_show.get(path, image_id) != image_id:
            continue
        sound = state == "indexed" and reason is None  # with a reason it is gone, or unreadable
        if (sound or path in back) and is_there(path, size, mtime_ns):
            yield _Proof(image_id, row_id > settled.get(root_id, 0))
    for path, shown in would_show.items():
        if shown in images and is_there(path, -1, -1):
            yield _Proof(shown, False)


def _is_unchanged(path: bytes, size: int, mtime_ns: int) -> bool:
    """Whether a regular file has the size and time of its row, which may say a tick less."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    stamps = stamps_of(found)
    is_as_old = stamps.mtime_ns - mtime_ns in (0, 1)
    return stat.S_ISREG(found.st_mode) and stamps.size == size and is_as_old


def note_settled(library: Library, root_ids: Iterable[int]) -> None:
    """Remember which files of some roots are known by the end of a run that was not interrupted."""
    [(last,)] = library.rows("SELECT coalesce(max(id), 0) FROM files")
    noted = _settled(library)
    changed = [root_id for root_id in root_ids if noted.get(root_id) != last]
    if changed:
        with library.transaction() as conn:
            conn.executemany(
                "INSERT OR REPLACE INTO library (key, value) VALUES (?, ?)",
                [(f"{SETTLED_KEY}{root_id}", last) for root_id in changed],
            )


def _settled(library: Library) -> dict[int, int]:
    """Return the last file's id that ``note_settled`` remembered, by root id."""
    rows = library.rows("SELECT key, value FROM library WHERE key LIKE ?", (f"{SETTLED_KEY}%",))
    return {int(key.removeprefix(SETTLED_KEY)): int(value) for key, value in rows}


def too_many(lost: int, remaining: int) -> bool:
    """Say whether so many files disappeared from a root that a person should confirm it."""
    return lost > HANDFUL and lost > SHARE * (lost + remaining)
