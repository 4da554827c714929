"""Build distributions and make environments from the repository's own files, without a network."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from places import CHECKOUT


def tracked(*patterns: str) -> list[str]:
    """The files of the repository that a commit would contain, as paths from its root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("this is not a Git checkout")
    names = dict.fromkeys(filter(None, listed.stdout.split("\0")))
    return [name for name in names if os.path.lexists(CHECKOUT / name)]


def copy_checkout(folder: Path) -> Path:
    """Copy the repository's files into a new folder, links as links; return the folder."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, folder / name, follow_symlinks=False)
    return folder


def build(kind: str, source: Path, out: Path) -> Path:
    """Build the ``wheel`` or the ``sdist`` of a source folder; return the file."""
    code = (
        "import sys; from setuptools import build_meta as b; "
        f"print(b.build_{kind}(sys.argv[1]), file=sys.stderr)"
    )
    out.mkdir(exist_ok=True)
    run = subprocess.run(
        [sys.executable, "-c", code, out], cwd=source, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return out / run.stderr.splitlines()[-1]


def make_environment(folder: Path) -> Path:
    """Make a virtual environment with all packages of this one but fovea; return its Python."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    packages = folder / "other-packages"
    packages.mkdir()
    for place in sys.path:
        if place.endswith("-packages") and os.path.isdir(place):
            for entry in os.scandir(place):
                own = entry.name.startswith(("fovea", "__editable__", "__pycache__"))
                if not own and not entry.name.endswith(".pth"):
                    link = packages / entry.name
                    if not link.is_symlink():
                        link.symlink_to(entry.path)
    [site] = folder.glob("lib/python3*/site-packages")
    (site / "others.pth").write_text(f"{packages}\n")
    return python


def install(python: Path, *requirements: str | Path) -> None:
    """Install into an environment with this one's pip, without a network."""
    pytest.importorskip("pip")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    run = subprocess.run([*command, *options, *requirements], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
