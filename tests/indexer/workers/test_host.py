import os
import subprocess
import sys

import pytest

from fovea.indexer.workers.host import SESSION
from places import CHECKOUT

PROGRAM = """
import os
from fovea.indexer.workers.host import SESSION, step_back
before = os.nice(0)
step_back(3)
print(os.nice(0) - before, *SESSION.read_text().split()[-1:] if SESSION.exists() else "")
"""
# Where the kernel groups nothing, the file is missing or empty.
weighs_sessions = pytest.mark.skipif(
    not (SESSION.exists() and SESSION.read_text()), reason="this system does not weigh sessions"
)


def levels(**options):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=CHECKOUT, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stderr
    process, _, session = done.stdout.strip().partition(" ")
    return int(process), session


@pytest.mark.skipif(not hasattr(os, "nice"), reason="this system has no niceness")
def test_a_process_steps_back():
    assert levels()[0] == 3


@weighs_sessions
def test_a_session_of_its_own_steps_back_with_it():
    process, session = levels(start_new_session=True)
    assert process == 3 and int(session) == os.nice(0) + 3


@weighs_sessions
def test_a_session_with_others_in_it_stays():
    before = SESSION.read_text().split()[-1]
    assert levels()[1] == before
