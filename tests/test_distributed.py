import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from coloured import tiny_run
from search.clip.train import train

SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from dataclasses import replace
from coloured import tiny_run
from search.clip.pairs import Source
from search.clip.train import train
folder = Path(sys.argv[1])
source = Source((folder / "squares.tar",), captions=folder / "captions.jsonl")
for accumulate in (1, 2):
    out = folder / f"two-{accumulate}"
    train(tiny_run(folder, out=out, sources=(source,), accumulate=accumulate))
"""


def test_two_processes_train_as_one_on_the_joint_batch(tmp_path):
    alone = tiny_run(tmp_path, out=tmp_path / "alone")
    train(alone)
    (tmp_path / "both.py").write_text(SCRIPT)
    tests = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", str(tmp_path / "both.py")]
    command += [str(tmp_path), str(tests), str(tests.parent)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    one = torch.load(alone.out / "checkpoint.pt", weights_only=True)["model"]
    for accumulate in (1, 2):
        run = replace(alone, out=tmp_path / f"two-{accumulate}")
        two = torch.load(run.out / "checkpoint.pt", weights_only=True)["model"]
        assert one.keys() == two.keys()
        for name in one:
            assert torch.allclose(one[name], two[name], atol=2e-5), (accumulate, name)
        lines = (run.out / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 3  # written by one process alone
