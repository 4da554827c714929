"""Queries as people type them in a shell: without quotation marks, and with minuses."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from fovea.search.clip.errors import FoveaError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["KEYS", "QueryCommand", "complete_query", "joined"]

# What a term may begin with: the filters, like: and sort:. Completing them imports nothing.
KEYS = (
    "in", "name", "on", "after", "before", "camera", "lens", "format", "is", "size", "longer",
    "near", "place", "text", "tag", "like", "sort",
)  # fmt: skip


def joined(words: tuple[str, ...]) -> str:
    """Return the query that the words of a command line make: ``dog -cat`` is one with or without
    quotation marks."""
    return " ".join(words)


class QueryCommand(click.Command):
    """A command whose arguments are a query, in which ``-people`` is a word and not an option.

    Its short options are only those of exactly their form (``-k 5``, ``-k5``); after ``--`` all is
    query.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options: list[str] = []
        words: list[str] = []
        rest = iter(args)
        for arg in rest:
            if arg == "--":
                words += rest
            elif not self._is_option(arg, ctx):
                words.append(arg)
            else:
                options.append(arg)
                if self._wants_value(arg, ctx):
                    options += (value for value in [next(rest, None)] if value is not None)
        return super().parse_args(ctx, [*options, "--", *words] if words else options)

    def _is_option(self, arg: str, ctx: click.Context) -> bool:
        if arg.startswith("--"):
            return True
        if not arg.startswith("-") or arg == "-":
            return False
        name, known = f"-{arg}", self._names(ctx)
        if name in known and not ctx.resilient_parsing:
            raise click.UsageError(
                f"there is no option {arg}; did you mean {name}? A query with less of that word "
                f"goes after --: {ctx.command_path} -- {arg}",
                ctx,
            )
        return arg in known or ("-k" in known and arg[:2] == "-k" and arg[2:].isdecimal())

    def _wants_value(self, arg: str, ctx: click.Context) -> bool:
        """Whether the next argument is this option's value, whatever that looks like."""
        return any(
            isinstance(param, click.Option)
            and not (param.is_flag or param.count)
            and arg in (*param.opts, *param.secondary_opts)
            for param in self.get_params(ctx)
        )

    def _names(self, ctx: click.Context) -> set[str]:
        options = (param for param in self.get_params(ctx) if isinstance(param, click.Option))
        return {name for option in options for name in (*option.opts, *option.secondary_opts)}

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        """Complete options, and after a minus filters as well."""
        found: list[CompletionItem[str]] = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-") and not incomplete.startswith("--"):
            found += complete_query(ctx, None, incomplete)
        return found


def complete_query(
    ctx: click.Context, param: click.Parameter | None, incomplete: str
) -> "list[CompletionItem[str]]":
    """Complete a filter's name, or its value from what the library has."""
    from click.shell_completion import CompletionItem

    sign = incomplete[:1] if incomplete[:1] in ("-", "+") else ""
    key, colon, start = incomplete[len(sign) :].partition(":")
    if not colon:
        names = (name for name in KEYS if name.startswith(key.lower()))
        return [CompletionItem(f"{sign}{name}:", type="part") for name in names]
    values = _known(ctx, key.lower(), start.removeprefix('"'))
    return [CompletionItem(value) for value in _written(key.lower(), sign, values)]


def _known(ctx: click.Context, key: str, start: str) -> list[str]:
    """Return values that begin so, from the library that the command names."""
    if key == "sort":
        return [order for order in ("score", "date", "name") if order.startswith(start)]
    from fovea.cli.opening import library_folder
    from fovea.search.query.known_values import known_values

    try:
        return known_values(library_folder(ctx.params.get("folder")), key, start)
    except FoveaError:  # no library is named, and there is no default
        return []


def _written(key: str, sign: str, values: list[str]) -> Iterator[str]:
    """Write filters as the query language does, in quotation marks where a value needs them."""
    from fovea.search.query.language import Filter, Query

    for value in values:
        if key == "sort":
            yield f"sort:{value}"
        else:
            yield str(Query(filters=(Filter(key, value, sign == "-"),)))
