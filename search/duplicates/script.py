"""A shell script that moves or removes copies. fovea writes it, and never runs it."""

import os
import shlex
from collections.abc import Iterable, Iterator

from fovea.search.library.paths import printable

from .best import LACKS
from .groups import Duplicate, DuplicateGroup

__all__ = ["script_of"]

# POSIX, as dash, BusyBox and bash read it; ``-ef`` is not, but all of them have it.
HEAD = r"""#!/bin/sh
# Written by fovea duplicates, which itself moves and removes nothing. Read it, and delete the
# lines of files that are to stay. Each line stands for itself, and names a file, its bytes, when it
# was modified in seconds since 1970, the same three of the best of its group, and how these two
# are alike: "equal" byte for byte, or "alike" to the eye.
#
#     sh THIS              says what it would do
#     sh THIS FOLDER       moves the files into FOLDER, where they keep their paths
#     sh THIS --remove     removes them for good
#
# A file stays where the best is not there, where one of the two is not as large or as old as when
# it was indexed, where two that are to be equal are not (cmp compares them), where both are the
# same file, or where FOLDER has a file of that path.
set -u
case ${1-} in
'') act=say ;;
--remove) act=remove ;;
-*) printf 'unknown option: %s\n' "$1" >&2; exit 2 ;;
/*) act=move folder=${1%/} ;;
*) act=move folder=$PWD/${1%/} ;;
esac
done=0 stay=0

# Either GNU's and BusyBox's stat, or that of BSD and macOS.
age() { stat -c %Y -- "$1" 2>/dev/null || stat -f %m -- "$1" 2>/dev/null; }

is_whole() { # FILE BYTES MODIFIED
    [ -f "$1" ] && [ "$(wc -c <"$1")" -eq "$2" ] || return 1
    [ "$3" = - ] || [ "$(age "$1")" = "$3" ]
}

say() { printf '%s: %s' "$1" "$2" | LC_ALL=C tr '\001-\037\177' '[?*]'; echo; }

stays() {
    stay=$((stay + 1))
    say "stays, as $1" "$2" >&2
}

spare() {
    case ${7-} in
    equal) set -- "$1" "$2" - "$4" "$5" - "$7" ;; # what they hold tells more than their age
    alike) ;;
    *) stays 'its line is not as it was written' "$1"; return ;;
    esac
    if ! is_whole "$1" "$2" "$3"; then stays 'it has changed or is gone' "$1"; return; fi
    if ! is_whole "$4" "$5" "$6"; then stays 'the best has changed or is gone' "$1"; return; fi
    if [ "$1" -ef "$4" ]; then stays 'it is the same file as the best' "$1"; return; fi
    if [ "$7" = equal ] && ! cmp -s -- "$1" "$4"; then
        stays 'it differs from the best' "$1"
        return
    fi
    case $act in
    say) say 'would go' "$1" ;;
    remove) rm -f -- "$1" || { stays 'it could not be removed' "$1"; return; } ;;
    move)
        to=$folder$1
        if [ -e "$to" ] || [ -L "$to" ]; then stays 'FOLDER has one of that path' "$1"; return; fi
        { mkdir -p -- "${to%/*}" && mv -- "$1" "$to"; } ||
            { stays 'it could not be moved' "$1"; return; }
        ;;
    esac
    done=$((done + 1))
}
"""

TAIL = r"""
files=files
[ "$done" = 1 ] && files=file
case $act in
say) printf '%s %s would go, %s stay; nothing has changed\n' "$done" $files "$stay" >&2 ;;
remove) printf '%s %s removed, %s stay\n' "$done" $files "$stay" >&2 ;;
move) printf '%s %s moved, %s stay\n' "$done" $files "$stay" >&2 ;;
esac
"""


def script_of(groups: Iterable[DuplicateGroup]) -> Iterator[bytes]:
    """Yield a POSIX shell script that takes the others of the groups away, never the best.

    Without arguments it only says what it would do. Paths are quoted byte by byte.
    """
    yield HEAD.encode()
    for group in groups:
        best = group.best
        others = [one for one in group.others if one.path != best.path]
        if not others:
            continue
        said = printable(best.path).encode("ascii", "backslashreplace").decode()
        lines = [f"\n# {'A burst' if group.kind == 'burst' else 'Copies'}; the best is {said}\n"]
        for one in others:
            why = ", ".join(LACKS[name] for name in one.lacks) or "lacks nothing"
            how = "equal" if one.image_id == best.image_id else "alike"
            lines.append(f"spare {_file(one)} {_file(best)} {how}  # {why}\n")
        yield "".join(lines).encode("utf-8", "surrogateescape")
    yield TAIL.encode()


def _file(one: Duplicate) -> str:
    """Write a file as three words for a shell: its path, which is absolute, bytes, and age."""
    modified = "-" if one.modified is None else one.modified
    return f"{shlex.quote(os.path.abspath(one.path))} {one.bytes} {modified}"
