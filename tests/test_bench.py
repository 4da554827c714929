"""The benchmarks still run: what they time is for them to print."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from places import CHECKOUT

FOLDER = CHECKOUT / "bench"
SCRIPTS = sorted(FOLDER.glob("*.py"), key=lambda path: path.name)


def load(path: Path) -> ModuleType:
    spec = spec_from_file_location(f"bench_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def path_as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_says_what_it_takes(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as left:
        load(path).main()
    assert left.value.code == 0
    assert "usage:" in capsys.readouterr().out.lower()


def test_training_is_measured_by_updates_that_training_makes(monkeypatch):
    bench = load(FOLDER / "train.py")
    monkeypatch.setattr(bench, "keep_allocations", lambda: None)
    command = "train.py --batch 4 --length 8 --steps 1 --device cpu --dtype float32"
    monkeypatch.setattr(sys, "argv", command.split())
    options = bench.arguments()
    for slices in (1, 2):
        found = bench.measure(options, slices)
        assert found["images_per_s"] > 0 and found["memory"] > 0
        assert found["flops"] > 1e9  # of a pair: 11 million weights, most of them used often
    assert bench.loading(options, count=64, side=32) > 0


def test_another_models_encoder_is_timed(monkeypatch, capsys):
    command = "encode.py --model fovea-small --batches 2 --seconds 0.01 --device cpu"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--dtypes", "float32"])
    load(FOLDER / "encode.py").main()
    table = capsys.readouterr().out.splitlines()
    assert table[-1].split()[:2] == ["float32", "2"]
