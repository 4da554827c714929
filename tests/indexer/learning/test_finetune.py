import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from coloured import COLOURS, tiny_run
from fovea.indexer.learning import finetune as finetuning
from fovea.indexer.learning.finetune import finetune_library, refused
from fovea.indexer.learning.training_set import Wanted
from fovea.indexer.scanning.scan import index_folders
from fovea.search.clip.errors import ModelError
from fovea.search.clip.finetuning.finetune import Comparison, Figures, TuneOptions
from fovea.search.clip.training.train import train
from fovea.search.library.library import Library
from fovea.search.models.resolve import resolve_model
from places import HELPERS
from tower_parts import JOINED, write_joined

OPTIONS = TuneOptions(
    tune=1, epochs=6, batch_size=16, lr=2e-3, device="cpu", dtype="float32", log_every=2,
    save_every=2,
)  # fmt: skip
WANTED = Wanted(words=("names",), views=2)
LABELS = ("red", "lime", "blue", "yellow", "black", "white", "a square")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model that knows colours a little, and a library whose folders call them otherwise."""
    folder = tmp_path_factory.mktemp("home")
    start = train(tiny_run(folder, out=folder / "start", samples=240))
    for name, value in COLOURS.items():
        place = folder / "photos" / f"{name[::-1]} tile"
        place.mkdir(parents=True)
        for number in range(16):
            rng = np.random.default_rng([number, *value])
            noise = rng.integers(-60, 61, size=(4, 4, 3)).repeat(8, 0).repeat(8, 1)
            pixels = np.clip(np.array(value) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
    model = resolve_model(str(start))
    with Library.open(folder / "library", create=True) as library:
        index_folders(
            library,
            [folder / "photos"],
            model=model,
            load_encoder=lambda: model.load(device="cpu", dtype="float32"),
            workers=1,
        )
    return folder


@pytest.fixture
def library(home):
    with Library.open(home / "library") as opened:
        yield opened


def tune(library, home, out, **changes):
    chosen = {"wanted": WANTED, "options": OPTIONS, "labels": LABELS, "workers": 1} | changes
    model = resolve_model(str(home / "start" / "model"))
    return finetune_library(library, model, out=out, **chosen)


def test_a_library_teaches_its_own_words(library, home, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (home / "start" / "model").iterdir()}
    tuned = tune(library, home, tmp_path, least_agreement=0.0)
    found = tuned.comparison
    assert tuned.refusal is None and found.after.mean > found.before.mean + 0.1
    assert (tuned.pictures, tuned.captions, tuned.left_out) == (96, 6, {})
    assert tuned.folder.parent == tmp_path and tuned.folder.name.startswith("model-tuned-")
    figures = json.loads((tuned.folder / "finetuned.json").read_text())
    assert figures["before"] == json.loads(json.dumps(found.to_dict()))["before"]
    assert figures["from"]["name"] == "model" and figures["refusal"] is None
    encoder = resolve_model(str(tuned.folder)).load(device="cpu", dtype="float32")
    assert encoder.encode_texts(["a tile"]).shape == (1, 16)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert tune(library, home, tmp_path, least_agreement=0.0) == tuned


def test_a_model_of_an_efficientnet_and_a_bert_is_tuned_too(home, tmp_path):
    write_joined(tmp_path / "m", JOINED["lite-bert"])
    model = resolve_model(str(tmp_path / "m"))
    with Library.open(tmp_path / "library", create=True) as library:
        index_folders(
            library,
            [home / "photos"],
            model=model,
            load_encoder=lambda: model.load(device="cpu", dtype="float32"),
            workers=1,
        )
        short = replace(OPTIONS, epochs=1)
        tuned = finetune_library(
            library, model, wanted=WANTED, options=short, labels=LABELS, workers=1,
            least_agreement=0.0,
        )  # fmt: skip
    assert (tuned.pictures, tuned.captions) == (96, 6)
    before, after = (load_file(path / "model.safetensors") for path in (model.folder, tuned.folder))
    name = "bert.encoder.layer.1.output.dense.weight"
    assert not torch.equal(before[name], after[name].float())
    encoder = resolve_model(str(tuned.folder)).load(device="cpu", dtype="float32")
    assert encoder.encode_texts(["a dog"]).shape == (1, 40)


def test_other_options_make_a_model_beside_it(library, home, tmp_path):
    one = tune(library, home, tmp_path, least_agreement=0.0)
    short = replace(OPTIONS, epochs=1, save_every=7, log_every=7)
    two = tune(library, home, tmp_path, options=short, least_agreement=0.0)
    same = tune(library, home, tmp_path, options=replace(short, save_every=2), least_agreement=0.0)
    assert one.folder != two.folder == same.folder
    assert len(list((tmp_path / "features").glob("*.npy"))) == 1


def test_a_model_that_got_worse_is_refused_and_kept_apart(library, home, tmp_path):
    names = [(colour, f"{colour[::-1]} tile") for colour in COLOURS]  # as it has learned them
    lines = [f"{place}/{n}.png\ta {colour} square" for colour, place in names for n in range(16)]
    (tmp_path / "c.tsv").write_text("\n".join(["file\tcaption", *lines]))
    spoiling = replace(OPTIONS, lr=0.5, epochs=1, keep=0.0)
    wanted = replace(WANTED, captions=tmp_path / "c.tsv", words=())
    tuned = tune(library, home, tmp_path, options=spoiling, wanted=wanted)
    assert tuned.refusal is not None and tuned.folder.parent == tmp_path / "refused"
    assert json.loads((tuned.folder / "finetuned.json").read_text())["refusal"] == tuned.refusal


def figures(*recalls):
    return Figures(9, 9, dict(zip((1, 5, 10), recalls, strict=True)), {1: 0.5, 5: 0.5, 10: 0.5})


@pytest.mark.parametrize(
    ("after", "agreement", "told"),
    [
        ((0.3, 0.5, 0.6), 0.8, None),
        ((0.2, 0.4, 0.6), 1.0, None),
        ((0.2, 0.4, 0.5), 1.0, r"fewer of .*: mean recall went from 45.0% to 43.3%"),
        ((0.9, 0.9, 0.9), 0.79, r"forgotten too much: .* for 79.0% of .* less than 80%"),
        ((float("nan"), 0.4, 0.6), 1.0, "fewer"),
        ((0.9, 0.9, 0.9), float("nan"), "forgotten"),
    ],
)
def test_the_figures_decide_whether_a_model_is_refused(after, agreement, told):
    found = refused(Comparison(figures(0.2, 0.4, 0.6), figures(*after), agreement, 50), 0.8)
    if told is None:
        assert found is None
    else:
        assert re.search(told, found)


def test_a_full_disk_is_told(library, home, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", full)
    with pytest.raises(ModelError, match="the disk of .* is full"):
        tune(library, home, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(finetuning, "save_model", lambda *a: full())
    with pytest.raises(OSError, match="No space left"):
        tune(library, home, tmp_path)
    monkeypatch.undo()
    assert tune(library, home, tmp_path, least_agreement=0.0).refusal is None


SCRIPT = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import test_finetune as tests
from fovea.search.library.library import Library
home = Path(sys.argv[1])

def slowly(metrics):
    print(metrics.step, flush=True)
    time.sleep(0.2)

with Library.open(home / "library") as library:
    tests.tune(library, home, Path(sys.argv[2]), on_metrics=slowly, least_agreement=0.0)
"""


def test_a_process_that_is_killed_goes_on_to_the_same_weights(library, home, tmp_path):
    whole = tune(library, home, tmp_path / "whole", least_agreement=0.0)
    here = Path(__file__).parent
    out = tmp_path / "killed"
    command = [sys.executable, "-c", SCRIPT, str(home), str(out), str(here), str(HELPERS)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as started:
        for line in started.stdout:
            if int(line) >= 8:
                break
        time.sleep(0.05)
        started.send_signal(signal.SIGKILL)
    assert started.returncode == -signal.SIGKILL
    [run] = (out / "runs").iterdir()
    assert not (out / run.name).exists()
    again = tune(library, home, out, least_agreement=0.0)
    one, two = (load_file(tuned.folder / "model.safetensors") for tuned in (whole, again))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert again.comparison == whole.comparison
