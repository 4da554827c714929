"""Two processes on the CPU, as ``torchrun`` starts them, against one process on the joint batch."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from coloured import labelled_source, tiny_run
from fovea.search.clip.errors import ModelError
from fovea.search.clip.training.distributed import World, own_device
from fovea.search.clip.training.train import train
from places import CHECKOUT, HELPERS

# One start of the processes, which costs seconds, for all the runs. The first one joins and parts
# by itself; a process group that is made again from the same store may meet what the last one left.
SCRIPT = """
import os
import sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import torch.distributed as dist
from coloured import tiny_run
from fovea.search.clip.errors import ModelError
from fovea.search.clip.datasets.pairs import PairSource
from fovea.search.clip.training.train import train

folder = Path(sys.argv[1])
source = PairSource((folder / "squares.tar",), captions=folder / "captions.jsonl")
options = tiny_run(folder, out=folder / "whole", sources=(source,))
train(options)
dist.init_process_group(
    "gloo",
    init_method=f"file://{folder}/store",
    rank=int(os.environ["RANK"]),
    world_size=int(os.environ["WORLD_SIZE"]),
)
train(replace(options, out=folder / "slices", accumulate=2))
labels = {"labels": folder / "labels.jsonl", "classes": folder / "classes.json"}
sources = (source, PairSource((folder / "labelled",), **labels))
prompts = {"class_prompts": True, "captions_per_image": 2, "sources": sources}
train(replace(options, out=folder / "prompts", **prompts))
tune = {"init": folder / "start", "tune": "1"}
train(tiny_run(folder, out=folder / "tuned", sources=(source,), **tune))
train(replace(options, out=folder / "resumed", stop_after=3))
train(replace(options, out=folder / "resumed"))
apart = folder / ("resumed" if dist.get_rank() == 0 else "elsewhere")
for refused in (replace(options, out=folder / "odd", batch_size=9), replace(options, out=apart)):
    try:
        train(refused)
    except ModelError as exc:
        print(exc)
dist.destroy_process_group()
"""
RUNS = ("whole", "slices", "prompts", "tuned", "resumed")


def free_port():
    """Return a port on the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """The folder of two processes' runs, and of the same ones by one process, and what was said."""
    folder = tmp_path_factory.mktemp("joint")
    alone = tiny_run(folder, out=folder / "alone")
    start = train(replace(alone, out=folder / "first", samples=16)).rename(folder / "start")
    train(alone)
    prompts = {"class_prompts": True, "captions_per_image": 2}
    sources = (*alone.sources, labelled_source(folder))
    train(replace(alone, out=folder / "prompts alone", sources=sources, **prompts))
    tune = {"init": start, "tune": "1", "sources": alone.sources}
    train(tiny_run(folder, out=folder / "tuned alone", **tune))
    (folder / "both.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    command += [str(folder / "both.py"), str(folder), str(HELPERS), str(CHECKOUT)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as started:
        try:
            said, complaints = started.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            started.terminate()  # unlike a kill, it takes the training processes along
            raise
    assert started.returncode == 0, complaints[-3000:]
    return folder, said


def state(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_train_as_one_on_the_joint_batch(joint, run):
    folder, _ = joint
    apart = run in ("tuned", "prompts")
    one, two = state(folder / (f"{run} alone" if apart else "alone")), state(folder / run)
    assert one.keys() == two.keys()
    for name in one:
        # in the mean, a fiftieth of what an update moves a weight by: its sign may differ where
        # a gradient is nothing but rounding
        error = (one[name] - two[name]).float().square().mean().sqrt()
        assert error < 2e-5, name


def test_one_process_alone_keeps_the_record(joint):
    folder, said = joint
    for run in RUNS:
        lines = (folder / run / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps == ([2, 3, 4, 6] if run == "resumed" else [2, 4, 6])


def test_what_processes_cannot_do_together_is_told_by_each(joint):
    _, said = joint
    assert said.count("a batch of 9 cannot be split evenly into 2 processes") == 2
    assert said.count("not every process finds the same checkpoint") == 2


@pytest.mark.parametrize(("name", "gpus", "device"), [
    ("auto", 0, "cpu"), ("cpu", 4, "cpu"), ("auto", 4, "cuda:1"), ("cuda", 4, "cuda:1"),
])  # fmt: skip
def test_each_process_has_a_device_of_its_own(monkeypatch, name, gpus, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert own_device(name, World(1, 2, 1)) == torch.device(device)


@pytest.mark.parametrize(("name", "gpus"), [("cuda:0", 4), ("mps", 0), ("cuda", 1), ("cuda", 0)])
def test_a_device_is_not_shared(monkeypatch, name, gpus):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ModelError):
        own_device(name, World(1, 2, 1))
