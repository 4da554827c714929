"""The rooms: which may import which, how large they are, and what their docstrings say."""

import ast
import re
from graphlib import CycleError, TopologicalSorter

import pytest

from places import CHECKOUT

# Each room may import from itself and from the rooms listed before it.
ORDER = (
    "data",
    "search.clip",
    "search.clip.checkpoints",
    "search.clip.engines",
    "search.clip.encoders",
    "search.clip.datasets",
    "search.clip.evaluation",
    "search.clip.parts",
    "search.clip.training",
    "search.clip.finetuning",
    "search",  # its errors
    "search.library.facts",
    "search.library",
    "search.places",
    "search.analyses",
    "search.models",
    "search.index",
    "search.seam",
    "search.tags",
    "search.query",
    "search.suggesting",
    "search.overview",
    "search.mapping",
    "search.duplicates",
    "search.embedded",
    "search.cluster",
    "search.maintenance",
    "indexer.decoding.rescue",
    "indexer.decoding",
    "indexer.sidecars",
    "indexer.decoding.video",
    "indexer.workers",
    "indexer.walking",
    "indexer.placing",
    "indexer.scanning",
    "indexer.watching",
    "indexer.analysing",
    "indexer.switching",
    "indexer.learning",
    "indexer.embedding.foreign",
    "indexer.embedding",
    "indexer",
    "web.contract",
    "web.engine",
    "web.jobs",
    "web.views",
    "web.serving",
    "web",
    "api",
    "cli",
)
MOST_FILES, MOST_LINES = 16, 500


def sources():
    """Map the name of every module to its file: ``search.query.run`` -> search/query/run.py."""
    found = {}
    for top in ("data", "fovea", "indexer", "search", "web"):
        for file in (CHECKOUT / top).rglob("*.py"):
            parts = file.relative_to(CHECKOUT).with_suffix("").parts
            if parts[0] == "fovea":
                parts = parts[1:]
                if parts[0] in ("data", "indexer", "search", "web"):
                    continue  # reached through a link: old versions of Python follow links
            found[".".join(parts).removesuffix("__init__").rstrip(".")] = file
    return found


SOURCES = sources()


def imports(name):
    """Yield the modules of fovea that a module imports, at any level of its code."""
    file = SOURCES[name]
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            elif base == "fovea" or base.startswith("fovea."):
                base = base.removeprefix("fovea").lstrip(".")
            else:
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if inner in SOURCES else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("fovea."):
                    yield alias.name.removeprefix("fovea.")


def room(name):
    """Return the innermost room of a module; "" if it is in none."""
    return max(
        (known for known in ORDER if f"{name}.".startswith(f"{known}.")), key=len, default=""
    )


@pytest.mark.parametrize("name", sorted(filter(room, SOURCES)))
def test_rooms_import_only_earlier_rooms(name):
    own = ORDER.index(room(name))
    for other in filter(room, imports(name)):
        assert ORDER.index(room(other)) <= own, f"{name} imports {other}"
        if name.startswith("search.clip"):
            assert other.startswith("search.clip"), f"{name} imports {other}"


SCRIPTS = {file: file.read_text("utf-8") for file in (CHECKOUT / "web").rglob("*.js")}
SHEETS = {file: file.read_text("utf-8") for file in (CHECKOUT / "web").rglob("*.css")}


@pytest.mark.parametrize("language", ["Python", "JavaScript"])
def test_modules_do_not_import_each_other_in_circles(language):
    if language == "Python":
        graph = {name: set(imports(name)) - {name} for name in SOURCES}
    else:
        graph = {
            str(file): {
                str((file.parent / other).resolve())
                for other in re.findall(r'^import (?:.* from )?"(.+)";$', text, re.MULTILINE)
            }
            for file, text in SCRIPTS.items()
        }
        assert set().union(*graph.values()) <= set(graph)
        assert graph[str(CHECKOUT / "web" / "static" / "js" / "main.js")]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]))


def test_scripts_and_style_sheets_are_small_enough():
    assert SCRIPTS and SHEETS
    for file, text in (SCRIPTS | SHEETS).items():
        assert text.count("\n") <= MOST_LINES, file
        assert len(list(file.parent.iterdir())) <= MOST_FILES, file.parent


def test_rooms_and_files_are_small_enough():
    for name, file in SOURCES.items():
        assert file.read_text("utf-8").count("\n") <= MOST_LINES, name
        if file.name == "__init__.py":
            assert len(list(file.parent.glob("*.py"))) <= MOST_FILES, name


def test_folders_and_files_of_tests_are_small_enough():
    files = list((CHECKOUT / "tests").rglob("*.py"))
    assert files
    for file in files:
        assert file.read_text("utf-8").count("\n") <= MOST_LINES, file
        assert len(list(file.parent.glob("*.py"))) <= MOST_FILES, file.parent


ROOMS = [name for name in ORDER if name not in ("api", "data")]


def inside(name, outer):
    return f"{name}.".startswith(f"{outer}.")


def called(name, word):
    """Return the room that a word in the docstring of the room ``name`` stands for."""
    if word.startswith("fovea."):
        return room(word.removeprefix("fovea."))
    while name:
        name = name.rpartition(".")[0]
        if f"{name}.{word}".lstrip(".") in SOURCES:
            return room(f"{name}.{word}".lstrip("."))
    return ""


@pytest.mark.parametrize("name", [name for name in ROOMS if name != "cli"])  # it may import all
def test_every_room_says_which_other_rooms_it_imports(name):
    said = ast.get_docstring(ast.parse(SOURCES[name].read_text("utf-8"))) or ""
    sentences = re.findall(r"May\s+import\s(.+?)[.;](?:\s|$)", said, re.DOTALL)
    named = {called(name, word) for text in sentences for word in text.split("``")[1::2]}
    assert "" not in named, f"{name} names a room that does not exist"
    imported = {
        room(other)
        for module in SOURCES
        if inside(room(module), name)
        for other in imports(module)
        if room(other) and not inside(room(other), name)
    }
    # A room stands for the rooms inside it too, unless this room is one of them.
    meant = {
        outer: {other for other in imported if other == outer or inside(other, outer)}
        if not inside(name, outer)
        else imported & {outer}
        for outer in named
    }
    assert imported == set().union(*meant.values()), f"{name} imports more or fewer rooms"
    assert all(meant.values()), f"{name} does not import {[o for o in meant if not meant[o]]}"


@pytest.mark.parametrize("name", ROOMS)
def test_every_room_says_where_to_start(name):
    said = ast.get_docstring(ast.parse(SOURCES[name].read_text("utf-8"))) or ""
    assert "Start reading" in said or "Reading order" in said
    for word in said.replace("/", ".").split("``")[1::2]:
        if word.endswith(".py"):
            assert f"{name}.{word.removesuffix('.py')}" in SOURCES, f"{name} has no {word}"


def test_the_documents_name_files_that_exist():
    for page in [CHECKOUT / "README.md", *(CHECKOUT / "docs").glob("*.md")]:
        for path in re.findall(
            r"\b((?:search|indexer|web|fovea|tests|bench)/[\w/]+\.py)\b", page.read_text("utf-8")
        ):
            assert (CHECKOUT / path).is_file(), f"{page.name} names {path}"
