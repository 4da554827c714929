import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coloured import tiny_run
from search.clip.train import train

SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from dataclasses import replace
from coloured import tiny_run
from search.clip.pairs import Source
from search.clip.train import train
folder = Path(sys.argv[1])
source = Source((folder / "squares.tar",), captions=folder / "captions.jsonl")
accumulate = int(sys.argv[2])
out = folder / f"two-{accumulate}"
train(tiny_run(folder, out=out, sources=(source,), accumulate=accumulate))
"""


def free_port():
    """Return a port on the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_train_as_one_on_the_joint_batch(tmp_path, accumulate):
    alone = tiny_run(tmp_path, out=tmp_path / "alone")
    train(alone)
    (tmp_path / "both.py").write_text(SCRIPT)
    tests = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    command += [str(tmp_path / "both.py"), str(tmp_path), str(accumulate)]
    command += [str(tests), str(tests.parent)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    run = replace(alone, out=tmp_path / f"two-{accumulate}")
    one, two = (torch.load(o.out / "checkpoint.pt", weights_only=True) for o in (alone, run))
    assert one["model"].keys() == two["model"].keys()
    for name in one["model"]:
        assert torch.allclose(one["model"][name], two["model"][name], atol=2e-5), name
    lines = (run.out / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3  # written by one process alone
