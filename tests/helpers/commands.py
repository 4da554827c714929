"""Run commands in this process, with a library and models of their own."""

import json

import pytest
from click.testing import CliRunner

from coloured import COLOURS
from fovea.cli import cli
from fovea.search.models import installed

ODD = b"caf\xe9\n\x1b[31m.png"


class Run:
    """What a command did."""

    def __init__(self, result):
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr
        self.result = result

    @property
    def json(self):
        assert self.code == 0, self.result.output
        assert self.out.count("\n") == 1, "one document on one line"
        return json.loads(self.out)


def run(*words):
    """Run a command in this process."""
    result = CliRunner().invoke(cli, [str(word) for word in words], prog_name="fovea")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Run(result)


def settle(patch, folder):
    """Let commands find the library and the models of a folder, and no network."""
    patch.setenv("FOVEA_LIBRARY", str(folder / "library"))
    patch.setenv("FOVEA_MODELS", str(folder / "models"))
    patch.setenv("FOVEA_OFFLINE", "1")
    patch.setattr(installed, "bundled_model", lambda: folder / "model")


def index_once(folder):
    """Index the photos of a folder with its model, before any test uses them."""
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder)
        done = run("index", folder / "photos", "--model", folder / "model", "--workers", 1)
        assert done.code == 0, done.err


def pictures(folder):
    """The pictures that differ from each other."""
    return [folder / "photos" / f"{colour}.png" for colour in COLOURS]
