"""Queries as people type them in a shell: without quotation marks, and with minuses."""

from collections.abc import Iterator

import click

__all__ = ["QueryCommand", "joined"]


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
        name = f"-{arg}"
        if name in self._names(ctx) and not ctx.resilient_parsing:
            raise click.UsageError(
                f"there is no option {arg}; did you mean {name}? A query with less of that word "
                f"goes after --: {ctx.command_path} -- {arg}",
                ctx,
            )
        return arg in self._names(ctx) or (arg.startswith("-k") and arg[2:].isdecimal())

    def _wants_value(self, arg: str, ctx: click.Context) -> bool:
        """Whether the next argument is this option's value, whatever that looks like."""
        return any(
            isinstance(param, click.Option)
            and not (param.is_flag or param.count)
            and arg in (*param.opts, *param.secondary_opts)
            for param in self.get_params(ctx)
        )

    def _names(self, ctx: click.Context) -> set[str]:
        return set(self._every_name(ctx))

    def _every_name(self, ctx: click.Context) -> Iterator[str]:
        for param in self.get_params(ctx):
            if isinstance(param, click.Option):
                yield from (*param.opts, *param.secondary_opts)
