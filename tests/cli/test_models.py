import os
import subprocess
import sys

import pytest

from commands import run
from places import CHECKOUT


def test_models_are_listed(used):
    rows = [row.split("\t") for row in run("models").out.splitlines()]
    names = [row[0] for row in rows]
    assert names[:2] == ["fovea-small", "RN50"] and "ViT-B/32" in names
    entries = run("models", "list", "--json").json
    assert [entry["name"] for entry in entries] == names
    assert entries[0]["folder"] == str(used / "model")


def test_a_model_is_described(used):
    fields = run("models", "info", "fovea-small", "--json").json
    assert (fields["name"], fields["source"], fields["dim"]) == ("fovea-small", "bundled", 48)
    assert len(fields["sha256"]) == 64
    assert f"sha256\t{fields['sha256']}" in run("models", "info").out


def test_a_model_that_cannot_be_pulled_is_one_line(used):
    done = run("models", "pull", "ViT-B/32")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert "not on this disk" in done.err


def test_without_any_other_the_bundled_model_is_described(used, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fovea", "models", "info"],
        cwd=CHECKOUT,
        env=os.environ | {"FOVEA_LIBRARY": str(tmp_path), "FOVEA_MODELS": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip("this checkout has no bundled model")
    assert done.stderr == "" and done.stdout.startswith("name\tfovea-small\n")
