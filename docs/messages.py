"""List every message that people can read, with the place that says it: python docs/messages.py

Errors, log lines, remarks of the command line and help texts, as they stand in the code: what is
filled in shows as {…}. Read them together after changing some, and mend what one would not say.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "fovea", "indexer", "search", "web")
SAYING = {"talk", "echo", "debug", "info", "warning", "error", "bad_request", "describe"}


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each message in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from _texts(node.exc)
        elif isinstance(node, ast.Call) and _name(node.func) in SAYING:
            yield from _texts(node)
        elif isinstance(node, ast.keyword) and node.arg == "help":
            yield node.value.lineno, _text(node.value)


def _texts(call: ast.Call) -> Iterator[tuple[int, str]]:
    for value in [*call.args, *(keyword.value for keyword in call.keywords)]:
        if " " in _text(value):
            yield value.lineno, _text(value)


def _text(node: ast.AST) -> str:
    """A string as it stands; what is filled in as {…}, and nothing for other expressions."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text(v) if isinstance(v, ast.Constant) else "{…}" for v in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left) + _text(right)
        case ast.IfExp(body=body, orelse=other):
            return f"{_text(body)} | {_text(other)}"
    return ""


def _name(function: ast.AST) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def main() -> None:
    """Print a line per message: file, line and text."""
    for room in ROOMS:
        for path in sorted((CHECKOUT / room).rglob("*.py")):
            place = path.relative_to(CHECKOUT)
            if place.parts[0] == "fovea" and place.parts[1] in ROOMS:
                continue  # behind the links, which old versions of Python follow
            for line, text in sorted(messages(ast.parse(path.read_text("utf-8")))):
                print(f"{place}:{line}\t{' '.join(text.split())}")


if __name__ == "__main__":
    main()
