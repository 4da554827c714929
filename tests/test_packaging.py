import ast
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions

import click
import pytest
from mypy.config_parser import parse_config_file
from mypy.find_sources import create_source_list
from mypy.options import Options

from building import build, copy_checkout, tracked
from fovea.data import BUNDLED, FORMER
from fovea.search.clip.formats import FORMATS
from places import CHECKOUT

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
sys.path.insert(0, str(CHECKOUT / "docs"))
regenerate = importlib.import_module("regenerate")
sys.path.pop(0)

COMMANDS = list(regenerate.commands())


ROOMS = ("data", "fovea", "indexer", "search", "web")


def installed_name(name):
    """Where a file of the checkout lies in a distribution: search/x.py -> fovea/search/x.py."""
    return name if name.startswith("fovea/") else f"fovea/{name}"


def wheel_files(path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        return {name: archive.read(name) for name in names}


def sdist_files(path):
    """The files of an sdist by their names below its one folder."""
    with tarfile.open(path) as archive:
        members = [member for member in archive if not member.isdir()]
        assert all(member.isreg() for member in members)
        files = {m.name.split("/", 1)[1]: archive.extractfile(m).read() for m in members}
        assert len(files) == len(members)
        return files


@pytest.fixture(scope="module")
def wheel(wheel_file):
    """name -> content of what a wheel holds that is built from the repository's files alone."""
    return wheel_files(wheel_file)


@pytest.fixture(scope="module")
def sdist_file(tmp_path_factory):
    place = tmp_path_factory.mktemp("sdist")
    return build("sdist", copy_checkout(place / "source"), place / "out")


@pytest.fixture(scope="module")
def sdist(sdist_file):
    return sdist_files(sdist_file)


# Distributions


def package_files():
    """Every file of the rooms, where it is to be installed, with its content."""
    files = [name for name in tracked(*ROOMS) if not (CHECKOUT / name).is_symlink()]
    found = {installed_name(name): (CHECKOUT / name).read_bytes() for name in files}
    assert len(found) == len(files)
    return found


def test_the_wheel_holds_every_file_of_the_rooms_once_and_nothing_else(wheel):
    files = {name: data for name, data in wheel.items() if ".dist-info/" not in name}
    [page] = [name for name in files if ".data/" in name]
    assert page.endswith(".data/data/share/man/man1/fovea.1")
    assert files.pop(page) == (CHECKOUT / "docs" / "fovea.1").read_bytes()
    assert set(files) == set(package_files())
    assert files == package_files()


def test_the_sdist_holds_every_file_of_the_rooms_once_and_nothing_else(sdist):
    files = {name: data for name, data in sdist.items() if name.startswith("fovea/")}
    assert set(files) == set(package_files())
    assert files == package_files()
    about = {name for name in sdist if not name.startswith(("fovea/", "fovea.egg-info/"))}
    expected = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml"}
    assert about == expected | {"docs/fovea.1", "setup.cfg", "setup.py"}


def test_a_wheel_from_the_sdist_equals_that_from_the_checkout(wheel, sdist_file, tmp_path):
    with tarfile.open(sdist_file) as archive:
        archive.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    assert wheel_files(build("wheel", source, tmp_path / "out")) == wheel


@pytest.mark.parametrize(
    "name",
    [
        "data/fovea-small/model.safetensors",
        "data/fovea-small/config.json",
        "data/fovea-small/README.md",
        "data/fovea-small/NOTICE",
        "data/fovea-small/LICENSE-APACHE-2.0.txt",
        "data/fovea-small/line.json",
        "data/fovea-small/vocab.txt.gz",
        "data/fovea-small-1/model.safetensors",
        "data/fovea-small-1/config.json",
        "data/fovea-small-1/bpe.txt.gz",
        "data/fovea-small-1/README.md",
        "data/labels.txt",
        "py.typed",
        "web/static/js/main.js",
        "web/templates/index.html",
        "web/translations/en.json",
    ],
)
def test_both_distributions_hold_what_is_not_code(wheel, sdist, name):
    found = CHECKOUT / ("fovea" if name == "py.typed" else ".") / name
    assert wheel[f"fovea/{name}"] == sdist[f"fovea/{name}"] == found.read_bytes()
    assert [n for n in wheel if n.endswith("py.typed")] == ["fovea/py.typed"]


@pytest.mark.parametrize(("name", "most"), [("fovea-small", 48e6), ("fovea-small-1", 23e6)])
def test_the_bundled_models_are_small(name, most):
    folder = CHECKOUT / "data" / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= most


def test_no_model_ships_but_the_bundled_one_and_those_it_replaced(wheel):
    models = {name.split("/")[2] for name in wheel if name.endswith(".safetensors")}
    assert models == {BUNDLED, *FORMER}


def test_former_bundled_models_are_those_that_libraries_know():
    for name, identity in FORMER.items():
        weights = (CHECKOUT / "data" / name / "model.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() == identity
        assert identity in (CHECKOUT / "data" / name / "README.md").read_text("utf-8")


def test_the_wheel_installs_the_command_and_its_licence(wheel):
    texts = {name.split("/", 1)[1]: text for name, text in wheel.items() if ".dist-info/" in name}
    assert b"fovea = fovea.cli:main" in texts["entry_points.txt"]
    assert b"MIT License" in texts["licenses/LICENSE"]
    metadata = texts["METADATA"].decode()
    assert "Requires-Python: >=3.11" in metadata
    systems = re.findall("^Classifier: Operating System :: (.*)$", metadata, re.M)
    assert systems == ["MacOS", "POSIX :: Linux"]
    assert "# fovea" in metadata


def test_a_checkout_without_symbolic_links_is_not_built(tmp_path):
    """As Git writes it with core.symlinks=false: a file that holds the link's target."""
    for name in tracked("fovea", "*.toml", "setup.py", "README.md", "LICENSE"):
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / name).is_symlink():
            place.write_text(os.readlink(CHECKOUT / name))
        else:
            shutil.copyfile(CHECKOUT / name, place)
    code = "from setuptools import build_meta; build_meta.build_wheel('out')"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1 and not list(tmp_path.glob("out/*"))
    assert "fovea/data should be a link to ../data" in run.stderr
    assert "git config core.symlinks true" in run.stderr and "Traceback" not in run.stderr


# Types


def test_mypy_checks_every_module_of_the_checkout():
    options = Options()
    parse_config_file(options, lambda: None, str(CHECKOUT / "pyproject.toml"))
    run = [path for path in tracked("*.py") if not path.startswith("tests/")]
    files = [os.path.join(CHECKOUT, place) for place in options.files]
    found = [os.path.realpath(source.path) for source in create_source_list(files, options)]
    assert sorted(found) == sorted(os.path.realpath(CHECKOUT / path) for path in run)


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
    names |= {plugin.split(".")[0] for format in FORMATS for plugin in format.plugins.split()}
    homes = packages_distributions()
    imported = {
        homes[name][0].lower().replace("_", "-")
        for name in names - sys.stdlib_module_names
        if name in homes
    }
    needed = {plain(entry) for entry in PROJECT["project"]["dependencies"]}
    extras = PROJECT["project"]["optional-dependencies"]
    names = (
        "cluster", "map", "ocr", "openvino", "places", "plot", "raw", "terminal", "transformers",
        "video",
    )  # fmt: skip
    optional = {plain(entry) for name in names for entry in extras[name]}
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
        "heavy = {'torch', 'faiss', 'flask', 'numpy', 'PIL', 'rich', 'textual', 'transformers'}\n"
        "heavy &= set(sys.modules)\n"
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
        "More than the picture",
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
