"""Whether ``fovea index`` would take a file, which nobody walked to."""

import os
import stat
from collections.abc import Callable, Collection

from fovea.indexer.decoding.reading import what_is
from fovea.indexer.scanning.changes import inside
from fovea.indexer.scanning.scan import KERNEL
from fovea.indexer.walking.ignore import BadIgnoreFile, Ignore, check_above

__all__ = ["Rules"]

KEPT = 100_000  # folders that are remembered


class Rules:
    """What is left out below the roots of a library: hidden, ignored or linked.

    ``roots`` gives those that there are; ``own`` is the library's folder.
    """

    def __init__(self, roots: Callable[[], Collection[bytes]], own: bytes) -> None:
        self._roots, self._stops = roots, KERNEL | {own}
        self._rules: dict[bytes, Ignore | str] = {}
        self._folders: dict[tuple[bytes, bytes], str | None] = {}

    def refusal(self, path: bytes, root: bytes) -> str | None:
        """Return why a walk of ``root`` would not come to a file below it; None if it would.

        Raise ``OSError`` where a folder on the way cannot be looked at, such as one that is gone.
        """
        rules = self._of_root(root)
        if isinstance(rules, str):
            return rules
        top = root.rstrip(b"/")
        *parts, name = path[len(top) + 1 :].split(b"/")
        folder = top
        for part in parts:
            folder += b"/" + part
            key = root, folder
            if key not in self._folders:
                if len(self._folders) >= KEPT:
                    self._folders.clear()
                self._folders[key] = self._of_folder(part, folder, folder[len(top) + 1 :], rules)
            if (reason := self._folders[key]) is not None:
                return reason
        return rules.reason(name, path[len(top) + 1 :], False)

    def _of_root(self, root: bytes) -> Ignore | str:
        """Return the rules of a root, or why nothing below it can be taken."""
        if root not in self._rules:
            around = [other for other in {*self._roots(), root} if inside(root, other)]
            try:
                check_above(root, min(around, key=len))
                self._rules[root] = Ignore.for_root(root)
            except BadIgnoreFile as exc:
                self._rules[root] = str(exc)
            except OSError as exc:
                self._rules[root] = f"unreadable: its folder: {exc.strerror}"
        return self._rules[root]

    def _of_folder(self, name: bytes, folder: bytes, relative: bytes, rules: Ignore) -> str | None:
        mode = os.lstat(folder).st_mode
        if not stat.S_ISDIR(mode):
            return f"not a file: its folder is {what_is(mode)}"
        if folder in self._stops:
            return "its folder is left out"
        reason = rules.reason(name, relative, True)
        if reason is not None:
            return f"{reason} (its folder)"
        try:
            rules.enter(folder, relative)
        except BadIgnoreFile as exc:
            return str(exc)
        return None
