"""Options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fovea.search.clip.errors import FoveaError
from fovea.search.clip.user_path import check_path, typed_path

Command = TypeVar("Command", bound=Callable[..., Any])

DEVICES = "auto, cpu, cuda, cuda:N or mps."
POSITIVE = click.IntRange(min=1)
ON_MILVUS = {
    "evaluate", "index", "models info", "models use", "roots list", "roots remove", "search",
    "serve", "similar", "status", "verify",
}  # fmt: skip
LIBRARY = "fovea.library"  # in ``ctx.meta``: the folder of ``--library``, or None


class UserPath(click.Path):
    """A path that means something: an empty one would be the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            text = check_path(value)
        except FoveaError as exc:
            self.fail(str(exc), param, ctx)
        if not text.startswith("~") and str(Path(text)).startswith("~"):
            value = os.path.abspath(text)  # ``Path`` would make ~ of ./~
        return super().convert(value, param, ctx)


class TypedPath(UserPath):
    """A path as people type or paste it: in quotation marks, or as a file:// address."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            value = typed_path(value) if value else value
        except FoveaError as exc:
            self.fail(str(exc), param, ctx)
        return super().convert(value, param, ctx)


FILE = UserPath(path_type=Path, readable=False)  # the reader explains why it cannot
PLACE = TypedPath(path_type=Path, readable=False)
FOLDER = UserPath(path_type=Path, file_okay=False)
DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")


def value_option(
    name: str, text: str, metavar: str, kind: click.ParamType | type, default: object = None
) -> Callable[[Command], Command]:
    """Add an option with a value; its help shows the default, if there is one."""
    shown: dict[str, Any] = {} if default is None else {"default": default, "show_default": True}
    return click.option(name, help=text, metavar=metavar, type=kind, **shown)


def library_option(command: Command, *, name: str = "--library", metavar: str = "DIR") -> Command:
    """Add ``--library``."""
    text = "The library's folder.  [default: FOVEA_LIBRARY, or the user's data folder]"
    return click.option(
        name, "folder", metavar=metavar, type=FOLDER, help=text, callback=_remember
    )(command)


def _remember(ctx: click.Context, param: click.Parameter, folder: Path | None) -> Path | None:
    """Keep the library that a command is about, for ``opening.damage_met``."""
    ctx.meta[LIBRARY] = folder
    named = os.environ.get("FOVEA_LIBRARY", "") if folder is None else str(folder)
    if named.strip().lower().startswith("milvus:") and not ctx.resilient_parsing:
        command = ctx.command_path.partition(" ")[2]
        if command not in ON_MILVUS:
            raise FoveaError(
                f"fovea {command} works on a library in a folder, not on one on Milvus; "
                f"these work on both: {', '.join(sorted(ON_MILVUS))}"
            )
    return folder


class SubjectGroup(click.Group):
    """Commands of one subject; ``--library`` may stand before their name as well as after it.

    ``alone`` names the command that runs where none is given, and ``--json`` may stand before it
    too; without it, one has to be.
    """

    def __init__(self, *args: Any, alone: str | None = None, **settings: Any) -> None:
        settings["invoke_without_command"] = True
        if alone is None:
            settings |= {"no_args_is_help": True, "subcommand_metavar": "COMMAND [ARGS]..."}
        super().__init__(*args, **settings)
        self.alone = alone
        self.params.append(
            click.Option(
                ["--library"],
                metavar="DIR",
                type=FOLDER,
                expose_value=False,
                callback=_hand_on,
                help="The library's folder; may also stand after the command.",
            )
        )
        if alone is not None:
            self.params.append(
                click.Option(
                    ["--json"],
                    is_flag=True,
                    expose_value=False,
                    callback=_hand_on,
                    help="Print one JSON document; may also stand after the command.",
                )
            )

    def invoke(self, ctx: click.Context) -> Any:
        value = super().invoke(ctx)
        if ctx.invoked_subcommand is not None:
            return value
        if self.alone is None:
            ctx.fail(f"a command is missing; there are {self._names(ctx)}")
        _, command, _ = self.resolve_command(ctx, [self.alone])
        assert command is not None
        with command.make_context(self.alone, [], parent=ctx) as inner:
            return command.invoke(inner)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {name!r}; there are {self._names(ctx)}")
        for option in (ctx.default_map or {}).get(name, {}):
            if command is not None and not any(param.name == option for param in command.params):
                ctx.fail(f"{ctx.command_path} {name} takes no {_HANDED_ON[option]}")
        return super().resolve_command(ctx, args)

    def _names(self, ctx: click.Context) -> str:
        *others, last = self.list_commands(ctx)
        return f"{', '.join(others)} and {last}"


_HANDED_ON = {"folder": "--library", "as_json": "--json"}  # a command's parameter: its option


def _hand_on(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Make what is given before a command what the command takes by default."""
    if value:
        assert isinstance(ctx.command, click.Group)
        name = next(name for name, option in _HANDED_ON.items() if option in param.opts)
        known = ctx.default_map or {}
        ctx.default_map = {one: {**known.get(one, {}), name: value} for one in ctx.command.commands}


def machine_options(command: Command, *, dtypes: tuple[str, ...] = DTYPES) -> Command:
    """Add ``--device`` and ``--dtype``."""
    text = "Precision; auto is the fastest on the device."
    kind = click.Choice(dtypes)
    command = click.option("--dtype", type=kind, default="auto", show_default=True, help=text)(
        command
    )
    return value_option("--device", f"Where to run: {DEVICES}", "D", str, "auto")(command)


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from fovea.search.models.installed import available_models

    return [name for name in available_models() if name.startswith(incomplete)]


def model_option(text: str) -> Callable[[Command], Command]:
    """Add ``--model``."""
    return click.option(
        "--model", "name", metavar="NAME|DIR", shell_complete=complete_model, help=text
    )


def likely_option(command: Command) -> Command:
    """Add ``--likely``."""
    return click.option(
        "--likely", is_flag=True, help="Only likely matches, where the model can tell."
    )(command)


class _Moment(click.ParamType):
    """A time in a video, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from fovea.search.library.facts.moments import read_time

        found = read_time(str(value))
        if found is None:
            self.fail(f"{value!r} is not a time; write it as 83, 1:23 or 1m23s", param, ctx)
        return found / 1000


def at_option(of: str) -> Callable[[Command], Command]:
    """Add ``--at``."""
    help = f"The moment, where {of} is a video: 83, 1:23 or 1m23s."
    return click.option("--at", metavar="TIME", type=_Moment(), help=help)


def json_option(text: str = "Print one JSON document.") -> Callable[[Command], Command]:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help=text)


workers_option = value_option(
    "--workers", "Decoding processes.  [default: one per core]", "N", POSITIVE
)
k_option = value_option("-k", "Number of hits.", "N", POSITIVE, 10)


def embedding_options(command: Command) -> Command:
    """Add ``--workers`` and ``--batch-size``."""
    text = "Pictures embedded at a time.  [default: what one pass takes, at least 32]"
    batch_size = value_option("--batch-size", text, "N", POSITIVE)
    return workers_option(batch_size(command))
