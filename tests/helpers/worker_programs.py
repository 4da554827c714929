"""Worker processes that tests change, by code that runs in them first."""

from collections.abc import Callable

from fovea.indexer.workers import host

Command = Callable[..., list[str]]


def running_first(code: str, command: Command = host.command) -> Command:
    """Return what makes command lines as ``host.command`` does, of programs with more code."""

    def changed(module: str, *arguments: str) -> list[str]:
        words = command(module, *arguments)
        place = words.index("-c") + 1
        setting, start = words[place].split("; from ", 1)
        words[place] = f"{setting}\n{code}\nfrom {start}"
        return words

    return changed
