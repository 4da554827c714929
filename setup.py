"""Refuse to build from a checkout without symbolic links; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup

for room in ("data", "indexer", "search", "web"):
    if not Path(__file__).with_name("fovea").joinpath(room).is_dir():
        raise SystemExit(
            f"error: fovea/{room} should be a link to ../{room}, but this checkout has no symbolic "
            "links; run: git config core.symlinks true && git checkout -- fovea"
        )

setup()
