"""Completion in shells: click's own, with filters and their values, and ``fovea completion``."""

import os
import re
import shlex
from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from fovea.cli.output import talk
from fovea.search.clip.errors import FoveaError
from fovea.search.library.paths import printable_name

__all__ = ["completion", "register"]

VARIABLE = "_FOVEA_COMPLETE"
SPECIAL = re.compile(r"[^\w@%+=:,./~-]")  # to Bash
QUOTED = re.compile(r'["$`\\]')  # to Bash between double quotation marks
SINGLE = "'\\''"  # a single quotation mark between two
HISTORY = '"\\!"'  # an exclamation mark between two others, in which a backslash would stay
MARK = "# completes fovea's commands"

# Unlike click's own, these put no space behind what is only a part of a word ("part"), and in Bash
# the words are those of the line: it would split them at colons.
BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response line
    response=$(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for line in $response; do
        case "$line" in
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
            part,*) compopt -o nospace; COMPREPLY+=("${line#part,}") ;;
            plain,*) COMPREPLY+=("${line#plain,}") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a response whole part described
    local type key descr
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete "${words[1]}")}")
    for type key descr in ${response}; do
        case "$type" in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            part) part+=("$key") ;;
            plain)
                if [[ "$descr" == "_" ]]; then
                    whole+=("$key")
                else
                    described+=("$key":"$descr")
                fi ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described -U
    (( $#whole )) && compadd -U -V unsorted -a whole
    (( $#part )) && compadd -U -S '' -V unsorted -a part
    return 0
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef %(complete_func)s %(prog_name)s
fi
"""


class _Bash(BashComplete):
    source_template = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Split the line up to the cursor; the last word is incomplete, and may be empty."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        ends = line[-1:].isspace() and not line.endswith("\\ ")
        self._mark, inside = _open_quotation(line)
        ends = ends and not self._mark
        self._word = "" if ends or len(words) < 2 else words[-1]
        self._head = self._word[: len(self._word) - inside] if self._mark else ""
        return (words[1:] if ends else words[1:-1]), self._word

    def format_completion(self, item: "CompletionItem[str]") -> str:
        """Return what replaces the word, or what follows its last colon, escaped for Bash.

        After an open quotation mark, that is what follows the mark.
        """
        value = item.value
        if self._mark:
            value = value.removeprefix(self._head)
            if self._mark == "'":
                value = value.replace("'", SINGLE)
            else:
                value = QUOTED.sub(lambda found: chr(92) + found[0], value).replace("!", HISTORY)
            is_taken_as_closed = value.endswith(self._mark)  # by Bash, which closes others itself
            return f"{item.type},{value}{self._mark if is_taken_as_closed else ''}"
        if ":" in os.environ.get("COMP_WORDBREAKS", "") and item.type in ("plain", "part"):
            head = self._word[: self._word.rfind(":") + 1]
            value = value[len(head) :] if value.startswith(head) else value
        return f"{item.type},{SPECIAL.sub(lambda found: chr(92) + found[0], value)}"


def _open_quotation(line: str) -> tuple[str, int]:
    """Return the quotation mark that is open at the end of a line, and the length of what follows.

    That is in characters as Bash reads them; "" and 0 if none is open.
    """
    mark, length, rest = "", 0, iter(line)
    for char in rest:
        if char == mark:
            mark = ""
        elif not mark and char in "\"'":
            mark, length = char, 0
        elif char == "\\" and mark != "'":
            after = next(rest, "")
            length += 1 if not mark or QUOTED.match(after) else 2
        else:
            length += 1
    return (mark, length) if mark else ("", 0)


class _Zsh(ZshComplete):
    source_template = ZSH


class _Fish(FishComplete):
    def format_completion(self, item: "CompletionItem[str]") -> str:
        if item.type == "part":  # fish puts no space behind a colon
            item = CompletionItem(item.value, help=item.help)
        return str(super().format_completion(item))


SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def register() -> None:
    """Let click complete by these classes."""
    for name, kind in SHELLS.items():
        add_completion_class(kind, name)


@click.command(short_help="Install or print the completion of commands in a shell.")
@click.argument("shell", required=False, type=click.Choice(tuple(SHELLS)))
@click.option("--install", is_flag=True, help="Install it for you alone.")
def completion(shell: str | None, install: bool) -> None:
    """Complete commands, options, filters and their values in SHELL, by default yours.

    Prints the script that the shell reads, or installs it; run that again after an upgrade.

    \b
    fovea completion --install
    """
    name = shell or _own_shell()
    script = SHELLS[name](click.get_current_context().find_root().command, {}, "fovea", VARIABLE)
    text = script.source()
    if not install:
        click.echo(text, nl=False)
        return
    for path in _installed(name, text):
        click.echo(printable_name(path))
    talk(f"start a new {name} to complete fovea's commands with the Tab key")


def _own_shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        found = f"SHELL is {name!a}" if name else "SHELL is not set"
        raise click.UsageError(f"{found}; name one of: {', '.join(SHELLS)}")
    return name


def _installed(shell: str, text: str) -> list[Path]:
    """Write the script where the shell finds it; return the files that were written.

    fish looks into a folder of its own. Bash and zsh are told in the file that they read first.
    """
    home = Path.home()
    if shell == "fish":
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        return [_write(config / "fish" / "completions" / "fovea.fish", text)]
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    script = _write(data / "fovea" / f"completion.{shell}", text)
    start = home / ".bashrc"
    if shell == "zsh":
        start = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    quoted = shlex.quote(str(script))
    return [script, *_told(start, f"[ -r {quoted} ] && . {quoted}  {MARK}")]


def _told(start: Path, line: str) -> list[Path]:
    """Add a line to a shell's start-up file, unless it has it."""
    try:
        known = start.read_text("utf-8", "surrogateescape") if start.exists() else ""
    except OSError as exc:
        raise FoveaError(f"cannot read {printable_name(start)}: {exc.strerror}") from exc
    if line in known.splitlines():
        return []
    gap = "" if not known or known.endswith("\n") else "\n"
    try:
        with start.open("a", encoding="utf-8") as file:
            file.write(f"{gap}{line}\n")
    except OSError as exc:
        raise FoveaError(
            f"cannot write {printable_name(start)}: {exc.strerror}; add this line to what your "
            f"shell reads first: {line}"
        ) from exc
    return [start]


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise FoveaError(
            f"cannot write {printable_name(path)}: {exc.strerror}; put the script elsewhere: "
            "fovea completion SHELL > FILE"
        ) from exc
    return path
