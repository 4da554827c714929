"""Decide which names a walk ignores."""

import os
from collections.abc import Iterable

from pathspec import GitIgnoreSpec

from fovea.indexer.decoding.limits import Gone, Limits, Refused, Unreachable
from fovea.indexer.decoding.reading import read_file
from fovea.search.clip.errors import FoveaError

IGNORE_FILE = b".foveaignore"

# Besides everything whose name begins with a dot: folders without anybody's photographs, or with
# copies that other programs keep. A pattern ("!lost+found/") includes one again.
IGNORED_NAMES = frozenset(
    {
        b"#recycle",
        b"#snapshot",
        b"$RECYCLE.BIN",
        b"@Recently-Snapshot",
        b"@Recycle",
        b"@eaDir",
        b"System Volume Information",
        b"__MACOSX",
        b"__pycache__",
        b"lost+found",
        b"node_modules",
        b"site-packages",
    }
)


class Ignore:
    """The built-in rules of one root, and the patterns that come after them.

    Patterns follow .gitignore: the last one that matches decides, ``!`` includes a name again,
    and nothing inside an ignored folder is included.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        lines = [line for line in patterns if line.strip()]
        try:
            self._spec = GitIgnoreSpec.from_lines(lines) if lines else None
        except ValueError as exc:
            raise FoveaError(f"invalid ignore pattern: {exc}; correct it") from exc

    @classmethod
    def for_root(cls, root: bytes, patterns: Iterable[str] = ()) -> "Ignore":
        """Take the patterns in the root's ``.foveaignore``, if any, and then ``patterns``.

        Raise ``FoveaError`` if that file cannot be used, ``OSError`` if it is unknown whether there
        is one.
        """
        return cls([*_ignore_file(root), *patterns])

    def reason(self, name: bytes, relative: bytes, folder: bool) -> str | None:
        """Return why a name is ignored, or None if it is not.

        ``relative`` is the path from the root, with ``/`` between its parts.
        """
        built_in = name.startswith(b".") or name in IGNORED_NAMES
        if self._spec is not None:
            asked = self._spec.check_file(os.fsdecode(relative) + ("/" if folder else "")).include
            if asked is not None:
                return "ignored: matches an ignore pattern" if asked else None
        if not built_in:
            return None
        return (
            "ignored: hidden" if name.startswith(b".") else "ignored: not a folder of photographs"
        )

    def covers(self, path: bytes, root: bytes) -> str | None:
        """Return why a walk of the root ignores a path below it, or None if it does not."""
        relative = path[len(root.rstrip(b"/")) + 1 :]
        parts = relative.split(b"/")
        for depth, name in enumerate(parts, 1):
            folder = depth < len(parts)
            reason = self.reason(name, b"/".join(parts[:depth]), folder)
            if reason is not None:
                return f"{reason} (its folder)" if folder else reason
        return None


def _ignore_file(root: bytes) -> list[str]:
    path = os.path.join(root, IGNORE_FILE)
    try:
        os.lstat(path)  # tells a missing file from a folder that cannot be entered
        contents = read_file(path, Limits(file_bytes=1 << 20))
    except (Gone, FileNotFoundError, NotADirectoryError):
        return []
    except Unreachable as exc:
        assert isinstance(exc.__cause__, OSError)
        raise exc.__cause__ from None
    except Refused as exc:
        raise FoveaError(f"cannot use {os.fsdecode(path)}: {exc}; remove or repair it") from exc
    return contents.data.decode("utf-8", "surrogateescape").splitlines()
