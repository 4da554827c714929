"""What a damaged library makes of a call, told as the damage that it is."""

from collections.abc import Callable
from functools import wraps
from traceback import walk_tb
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from fovea.search.clip.user_path import user_path
from fovea.search.library.damage import explained
from fovea.search.library.library import DATABASE
from fovea.search.library.library import Library as Store

__all__ = ["telling"]

P = ParamSpec("P")
R = TypeVar("R")
ARGUMENTS = ("fovea.api", "fovea.keeping", __name__)  # modules that look at arguments


class Stored(Protocol):
    """An object with a library's store."""

    _store: Store


S = TypeVar("S", bound=Stored)


def telling(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a method raise ``LibraryDamaged`` instead of whatever a damaged library makes of it."""

    @wraps(method)
    def told(self: S, *arguments: P.args, **options: P.kwargs) -> R:
        try:
            return method(self, *arguments, **options)
        except Exception as exc:  # a mistake, unless the library is damaged
            if _is_of_arguments(exc):
                raise
            if damage := explained(self._store.folder / DATABASE, exc):
                raise damage from exc
            raise

    return told


def _is_of_arguments(exc: Exception) -> bool:
    """Whether an error is raised where arguments are looked at, so that no check is needed."""
    places = [frame.f_globals.get("__name__") for frame, _ in walk_tb(exc.__traceback__)]
    is_seen = places[-1] in ARGUMENTS or user_path.__module__ in places
    return is_seen and isinstance(exc, TypeError | ValueError)
