"""Refuse what a route does not take: a misspelt parameter would change nothing, unnoticed."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from itertools import islice

from .problems import Problem

__all__ = ["nearest", "refuse_unknown"]

NAMED = 10  # of the unknown names, in one answer
LONGEST = 40  # characters shown of a name
SIMILAR = 0.6  # difflib's ratio, from which a name is worth suggesting


def refuse_unknown(
    given: Iterable[str],
    known: Collection[str],
    route: str,
    *,
    kind: str = "parameter",
    elsewhere: Collection[str] = (),
) -> None:
    """Raise ``Problem`` 400 that names each of the names that are not known, and what is near.

    ``route`` takes the known ones, as ``kind``; those ``elsewhere`` belong in its body.
    """
    unknown = [name for name in dict.fromkeys(given) if name not in known]
    if not unknown:
        return
    told, near = [], []
    for name in islice(unknown, NAMED):
        shown = _shown(name)
        if name in elsewhere:
            told.append(f"{shown} (send it in the body)")
        elif found := nearest(name, known):
            near.append(found)
            told.append(f"{shown} (did you mean {found}?)")
        else:
            told.append(shown)
    if len(unknown) > NAMED:
        told.append(f"and {len(unknown) - NAMED:,} more")
    takes = ", ".join(known) or "none"
    raise Problem(
        400,
        "Bad Request",
        f"unknown {kind}{'s' if len(unknown) > 1 else ''} {', '.join(told)}; {route} takes {takes}",
        code="unknown",
        params={
            "unknown": ", ".join(map(_shown, islice(unknown, NAMED))),
            "near": ", ".join(dict.fromkeys(near)),
            "takes": takes,
        },
    )


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the known name that was probably meant; None if none is near."""
    low = name[:LONGEST].lower()
    if found := get_close_matches(low, known, 1, SIMILAR):
        return found[0]
    alike = (one for one in known if low.startswith(one) or one.startswith(low))
    return next(alike, None) if low else None


def _shown(name: str) -> str:
    return ascii(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}~")
