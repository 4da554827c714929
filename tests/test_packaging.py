import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
sys.path.insert(0, str(CHECKOUT / "docs"))
regenerate = importlib.import_module("regenerate")
sys.path.pop(0)

COMMANDS = list(regenerate.commands())


def tracked(*patterns):
    """The files of the repository that a commit would hold, as paths from its root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [name for name in listed.stdout.splitlines() if (CHECKOUT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel that is built from the repository's files alone."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    names = [*tracked(), "data/fovea-small/model.safetensors"]
    for name in dict.fromkeys(names):
        if (CHECKOUT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CHECKOUT / name, source / name, follow_symlinks=False)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    run = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    [path] = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# The wheel


def test_the_wheel_holds_every_module_and_nothing_else(wheel):
    modules = {name for name in wheel if name.endswith(".py")}
    expected = {
        name
        for name in tracked("*.py")
        if name.split("/")[0] in ("data", "fovea", "indexer", "search", "web")
    }
    assert modules == {re.sub("^(?!fovea/)", "fovea/", name) for name in expected}
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == {"fovea"}


def test_the_wheel_says_that_it_is_typed(wheel):
    assert [name for name in wheel if name.endswith("py.typed")] == ["fovea/py.typed"]


def test_the_wheel_brings_the_bundled_model(wheel):
    folder = CHECKOUT / "data" / "fovea-small"
    if not (folder / "model.safetensors").is_file():
        pytest.skip("this checkout has no bundled model")
    for path in folder.iterdir():
        assert wheel[f"fovea/data/fovea-small/{path.name}"] == path.read_bytes()
    assert {"config.json", "bpe.txt.gz"} <= {path.name for path in folder.iterdir()}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 30_000_000


def test_the_wheel_installs_the_command_and_its_licence(wheel):
    texts = {name.split("/", 1)[1]: text for name, text in wheel.items() if ".dist-info/" in name}
    assert b"fovea = fovea.cli:main" in texts["entry_points.txt"]
    assert b"MIT License" in texts["licenses/LICENSE"]
    metadata = texts["METADATA"].decode()
    assert "Requires-Python: >=3.11" in metadata
    assert "# fovea" in metadata


# Dependencies


def imported_names(folders):
    """The top-level names that modules import, wherever in the module that is."""
    for folder in folders:
        for name in tracked(f"{folder}*.py"):
            for node in ast.walk(ast.parse((CHECKOUT / name).read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    yield node.module.split(".")[0]


def plain(requirement):
    return re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-")


def test_what_is_imported_is_declared_and_the_reverse():
    names = set(imported_names(["fovea/", "data/", "indexer/", "search/", "web/"])) - {"fovea"}
    homes = packages_distributions()
    imported = {
        homes[name][0].lower().replace("_", "-")
        for name in names - sys.stdlib_module_names
        if name in homes
    }
    needed = {plain(entry) for entry in PROJECT["project"]["dependencies"]}
    extras = PROJECT["project"]["optional-dependencies"]
    optional = {plain(entry) for name in ("plot", "raw", "transformers") for entry in extras[name]}
    assert imported - optional == needed


def test_every_dependency_has_a_lower_bound():
    extras = PROJECT["project"]["optional-dependencies"]
    for entry in [
        *PROJECT["project"]["dependencies"],
        *(e for row in extras.values() for e in row),
    ]:
        assert ">=" in entry, entry


def test_torch_stays_in_the_range_that_is_tested():
    assert "torch>=2.6,<2.14" in PROJECT["project"]["dependencies"]


# Imports


@pytest.mark.parametrize(
    "package",
    ["fovea", "fovea.cli", "fovea.search", "fovea.search.clip", "fovea.indexer", "fovea.web"],
)
def test_importing_a_package_imports_nothing_heavy(package):
    code = (
        f"import sys, {package}\n"
        "heavy = {'torch', 'faiss', 'flask', 'numpy', 'PIL', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# Documentation


def test_every_command_has_help_with_an_invocation():
    for path in COMMANDS:
        text = regenerate.help_text(path)
        assert re.search(r"^  fovea ", text, re.M), f"{path} shows no invocation"
        command = regenerate.cli
        for word in path:
            command = command.commands[word]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{path} {parameter.name} has no help"


def test_every_command_is_in_the_documentation_as_it_is_now():
    page = regenerate.PAGE.read_text("utf-8")
    for path in COMMANDS:
        assert f"$ {' '.join(('fovea', *path))} --help\n" in page, path
    assert page == regenerate.regenerated(page), "run python docs/regenerate.py"


def test_the_readme_is_short_and_in_order():
    text = (CHECKOUT / "README.md").read_text("utf-8")
    assert 200 <= len(text.split()) <= 850
    assert re.findall(r"^##? (.+)$", text, re.M)[0] == "fovea"
    assert re.findall(r"^## (.+)$", text, re.M) == [
        "Install",
        "Search in the browser",
        "Search by command",
        "Search by library",
        "How it works",
        "Measured",
        "Limits",
        "Development",
        "Licence",
    ]


def test_the_readme_sets_all_up_in_two_commands():
    text = (CHECKOUT / "README.md").read_text("utf-8")
    shell = [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.S)
        for line in block.splitlines()
        if "pip install" in line
    ]
    assert len(shell) == 2
    assert "[demo]" in shell[0] and shell[0].endswith("fovea demo")
    assert "[test]" in shell[1] and shell[1].endswith("pytest")


def test_links_in_the_documentation_lead_somewhere():
    for name in tracked("*.md"):
        text = (CHECKOUT / name).read_text("utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            place = (CHECKOUT / name).parent / target
            assert place.exists(), f"{name} links to {target}"


def test_commands_in_the_documentation_are_commands():
    known = {path[0] for path in COMMANDS if path}
    for name in tracked("*.md"):
        text = (CHECKOUT / name).read_text("utf-8")
        for word in re.findall(r"(?:^|`|\$ |&& )fovea ([a-z]+)\b", text, re.M):
            assert word in known, f"{name}: fovea {word}"


def test_the_changelog_has_this_version():
    text = (CHECKOUT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## ([^,\n]+)", text, re.M)[0] == PROJECT["project"]["version"]


def test_nothing_names_a_place_of_one_machine():
    places = re.compile("|".join("/" + name for name in ("work/", "opt/", "root/", "mnt/data")))
    for name in tracked():
        path = CHECKOUT / name
        if path.suffix in (".py", ".md", ".toml", ".sh", ".json", ".txt") or name == ".ci/run":
            found = places.search(path.read_text("utf-8"))
            assert found is None, f"{name} names {found and found[0]}"
