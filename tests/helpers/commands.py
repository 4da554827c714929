"""Run a command in this process, and keep what it printed."""

import json

from click.testing import CliRunner

from fovea.cli import cli


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
