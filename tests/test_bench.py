"""The benchmarks still run; their figures are not checked."""

import math
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from building import make_environment
from places import CHECKOUT

FOLDER = CHECKOUT / "bench"
SCRIPTS = sorted(set(FOLDER.glob("*.py")) - {FOLDER / "common.py"})


def load(path: Path) -> ModuleType:
    spec = spec_from_file_location(f"bench_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def path_as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment without fovea."""
    return make_environment(tmp_path_factory.mktemp("environment") / "venv")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_starts_where_fovea_is_not_installed(path, python, tmp_path):
    run = subprocess.run([python, path, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "usage:" in run.stdout.lower() and "--help" in run.stdout


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


SIDES = {
    "ViT-B/32": 224,
    "ViT-B-32-256": 256,
    "ViT-B/16": 224,
    "ViT-L/14": 224,
    "SigLIP 2 B/16-256": 256,
    "Chinese-CLIP ViT-B/16": 224,
}


@pytest.mark.parametrize("name", ["bundled", *SIDES])
def test_models_to_choose_from_are_built_and_timed(name):
    bench = load(FOLDER / "models.py")
    assert list(bench.MODELS) == ["bundled", *SIDES]
    row = bench.measure(name, "cpu", "float32", 2, 0.01, tiny=True)
    assert row.rate > 0 and row.text_ms > 0 and row.pixels == SIDES.get(name, row.pixels)
    assert bench.line(row).startswith(name)


def test_the_recommended_model_is_as_large_as_is_said():
    from fovea.search.clip.checkpoints.shapes import expected_shapes
    from fovea.search.clip.config import ClipConfig, TextConfig, VisionConfig
    from fovea.search.models.named_hub import RECOMMENDED

    text = TextConfig(77, 49408, 512, 8, 12)
    config = ClipConfig(512, VisionConfig(256, 12, 768, 12, patch_size=32), text)
    count = sum(math.prod(shape) for shape in expected_shapes(config).values())
    assert count * 4 == pytest.approx(RECOMMENDED.bytes, rel=0.001)


def test_photographs_are_found_by_their_own_names(tmp_path, capsys, monkeypatch):
    """By a model of colours: red and lime are told apart, and two alike in name are no mistake."""
    colours = {"a.png": "red", "b.png": "lime", "c.png": "blue", "d.png": "blue"}
    for name, colour in colours.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    lines = ["file\twnid\tlabel", *(f"{name}\tn0\t{label}" for name, label in colours.items())]
    (tmp_path / "labels.tsv").write_text("\n".join(lines))
    bench = load(FOLDER / "photographs.py")
    monkeypatch.setattr("fovea.load_model", lambda name: ColourModel(swaps=name == "wrong"))
    command = [str(tmp_path), "--labels", str(tmp_path / "labels.tsv")]
    bench.main([*command, "--model", "right", "--model", "wrong"], standalone_mode=False)
    right, wrong, chance = capsys.readouterr().out.splitlines()
    assert right.startswith("right: @1 100.0 %, @10 100.0 % of 4 ")
    assert wrong.startswith("wrong: @1 50.0 %, @10 100.0 % of 4 ")
    assert chance.startswith("chance: @1 25.0 %")


class ColourModel:
    """Embeds an image and the last word of a text as a colour; ``swaps`` red and lime in texts."""

    def __init__(self, swaps):
        self.swaps = swaps

    def encode_images(self, images):
        rows = np.stack([np.asarray(image.convert("RGB"), np.float32)[0, 0] for image in images])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts):
        swapped = {"red": "lime", "lime": "red"} if self.swaps else {}
        words = [text.split()[-1] for text in texts]
        return self.encode_images(
            [Image.new("RGB", (1, 1), swapped.get(word, word)) for word in words]
        )
