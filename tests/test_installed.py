"""An installed fovea works beside packages and scripts with the names of its rooms."""

import os
import re
import socket
import subprocess
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from building import copy_checkout, install, make_environment

NAMES = ("data", "indexer", "search", "web")  # the rooms


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory):
    """A distribution with packages called data and web."""
    folder = tmp_path_factory.mktemp("neighbours")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "neighbours"\nversion = "1"\n'
        '[tool.setuptools]\npackages = ["data", "web"]\n'
    )
    for name in ("data", "web"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"ME = 'the neighbour {name}'\n")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the checkout for editable installs."""
    return copy_checkout(tmp_path_factory.mktemp("source") / "checkout")


@pytest.fixture(scope="module", params=["wheel", "editable", "strict"])
def installed(request, neighbours, tmp_path_factory):
    """An environment with fovea and its neighbours, and a user's folder of scripts and pictures."""
    folder = tmp_path_factory.mktemp(request.param)
    python = make_environment(folder / "venv")
    if request.param == "wheel":
        install(python, neighbours, request.getfixturevalue("wheel_file"))
    else:
        mode = "strict" if request.param == "strict" else "lenient"
        options = [f"--config-settings=editable_mode={mode}", "--editable"]
        install(python, neighbours, *options, request.getfixturevalue("source"))
    work = folder / "work"
    (work / "data" / "pictures").mkdir(parents=True)
    for colour in ("red", "lime", "blue"):
        Image.new("RGB", (64, 48), colour).save(work / "data" / "pictures" / f"{colour}.png")
    for name in ("indexer", "search"):
        (work / f"{name}.py").write_text(f"ME = 'my own {name}'\n")
    (work / "web.py").write_text("raise RuntimeError('fovea imported a module of the user')")
    return SimpleNamespace(kind=request.param, python=python, work=work, env=environment(folder))


def environment(folder: Path) -> dict[str, str]:
    """Return environment variables for a new user without a network."""
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    own = {"HOME": folder, "FOVEA_LIBRARY": folder / "library", "FOVEA_MODELS": folder / "models"}
    return kept | {name: str(place) for name, place in own.items()} | {"FOVEA_OFFLINE": "1"}


def run(place, *command, cwd=None):
    """Run a command in the user's folder; return its standard output."""
    done = subprocess.run(
        command, cwd=cwd or place.work, env=place.env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_adds_fovea_and_its_metadata_and_nothing_else(installed):
    [site] = installed.python.parents[1].glob("lib/python3*/site-packages")
    found = {re.sub(r"-[0-9.]+(?=\.dist-info$)", "", path.name) for path in site.iterdir()}
    others = {"others.pth", "data", "web", "neighbours.dist-info", "__pycache__"}
    if installed.kind == "wheel":
        assert found - others == {"fovea", "fovea.dist-info"}
        place = run(installed, installed.python, "-c", "import fovea; print(fovea.__file__)")
        assert Path(place.strip()) == site / "fovea" / "__init__.py"
    else:
        assert all("fovea" in name for name in found - others)


def test_it_indexes_searches_and_serves_beside_files_of_any_name(installed):
    program = installed.python.with_name("fovea")
    run(installed, program, "index", "data/pictures", "--model", "fovea-small", "--workers", "1")
    for command in ([program], [installed.python, "-m", "fovea"]):
        found = run(installed, *command, "search", "a blue picture", "-k", "1")
        assert found.strip().endswith(f"{os.sep}blue.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [program, "serve", "--port", port, "--no-browser"]
    server = subprocess.Popen(
        command, cwd=installed.work, env=installed.env,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        for line in server.stdout:
            if port in line:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as page:
            assert page.status == 200 and "<title>" in page.read().decode()
    finally:
        server.terminate()
        rest, _ = server.communicate(timeout=60)
    assert "Traceback" not in rest


def test_others_of_the_same_names_are_imported_as_before(installed, tmp_path):
    code = f"import {', '.join(NAMES)}; print([module.ME for module in ({', '.join(NAMES)})])"
    (tmp_path / "search.py").write_text("ME = 'my own search'\n")
    (tmp_path / "indexer.py").write_text("ME = 'my own indexer'\n")
    (tmp_path / "data").mkdir()  # pictures, not a package
    said = run(installed, installed.python, "-c", f"import fovea.cli; {code}", cwd=tmp_path)
    assert said.strip() == str(
        ["the neighbour data", "my own indexer", "my own search", "the neighbour web"]
    )


def test_a_bare_checkout_runs_and_collects_its_tests(source, tmp_path):
    place = SimpleNamespace(work=source, env=environment(tmp_path))
    python = make_environment(tmp_path / "venv")
    assert "Usage: fovea" in run(place, python, "-m", "fovea", "--help")
    here = "import fovea; print(fovea.__file__)"
    assert run(place, python, "-c", here).strip() == str(source / "fovea" / "__init__.py")
    some = ["tests/test_house.py", "tests/indexer/workers", "tests/web/views"]  # all take longer
    collected = run(place, python, "-m", "pytest", "--collect-only", "-q", *some)
    assert all(f"\n{name}" in f"\n{collected}" for name in some)
