import json
import math
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from coloured import COLOURS, RESNET, tiny_run
from fovea.search.clip.checkpoints.checkpoint import load_clip
from fovea.search.clip.config import ClipConfig, TextConfig, VisionConfig
from fovea.search.clip.errors import ModelError
from fovea.search.clip.finetuning import finetune as module
from fovea.search.clip.finetuning.features import LowerHalf
from fovea.search.clip.finetuning.finetune import (
    Comparison,
    Figures,
    TuneOptions,
    TuningExample,
    TuningSet,
    finetune,
    usual_rate,
)
from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.clip.training.losses import contrastive_loss
from fovea.search.clip.training.split import Halves
from fovea.search.clip.training.train import train

LABELS = ("a red thing", "a lime thing", "blue", "yellow", "black", "white", "a square")
OPTIONS = TuneOptions(
    tune=1, epochs=6, batch_size=12, lr=2e-3, device="cpu", dtype="float32", log_every=3,
    save_every=4,
)  # fmt: skip


VISION = VisionConfig(32, 1, 32, 2, patch_size=16)


class Stopped(Exception):
    """Stands for a kill between two steps."""


@pytest.fixture(scope="module", params=[None, RESNET], ids=["vit", "resnet"])
def start(request, tmp_path_factory):
    """The folder of a model that has learned a little."""
    changes = {"vision": request.param} if request.param else {}
    return train(tiny_run(tmp_path_factory.mktemp("start"), samples=240, **changes))


def examples(lower, numbers, name=str.upper):
    """Coloured squares whose captions call the colours by names that the model has not met."""
    found = []
    for colour, value in COLOURS.items():
        for number in numbers:
            rng = np.random.default_rng([number, *value])
            noise = rng.integers(-25, 26, size=(4, 4, 3)).repeat(lower.side // 4 + 1, 0)
            pixels = np.array(value) + noise.repeat(lower.side // 4 + 1, 1)
            square = np.clip(pixels[: lower.side, : lower.side], 0, 255).astype(np.uint8)
            content = bytes([number, *value]) * 8
            [features] = lower.features([square], [content], 3)
            captions = (f"{name(colour)[::-1]} tile",)
            found.append(TuningExample(content, captions, features))
    return found


def material(model, **changes):
    lower = LowerHalf(model, 1, device="cpu", dtype="float32")
    held_out = examples(lower, range(6, 9))
    made = TuningSet(examples(lower, range(5)), held_out, held_out, LABELS)
    return replace(made, **changes)


def tuned(start, folder, options=OPTIONS, on_metrics=None, **changes):
    """Tune the model and return the comparison and the weights."""
    model, tokenizer = load_clip(start), Tokenizer.from_folder(start)
    found = finetune(model, tokenizer, material(model, **changes), options, folder, on_metrics)
    return found, model.state_dict()


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_new_names_are_learned_and_measured_on_pictures_held_out(start, tmp_path):
    found, _ = tuned(start, tmp_path)
    assert (found.before.pictures, found.before.captions, found.general) == (18, 6, 18)
    assert found.after.image_to_text[1] > max(0.6, found.before.image_to_text[1] + 0.2)
    assert found.after.mean > found.before.mean


def test_only_the_upper_half_changes(start, tmp_path):
    _, weights = tuned(start, tmp_path)
    before = load_clip(start).state_dict()
    changed = {name for name in before if not torch.equal(before[name], weights[name])}
    assert "text_projection" in changed
    allowed = ("visual.attnpool.", "visual.proj", "visual.ln_post.", "visual.layer4.0.")
    allowed += ("visual.transformer.resblocks.0.", "transformer.resblocks.0.", "ln_final.")
    assert all(name.startswith((*allowed, "text_projection", "logit_scale")) for name in changed)
    assert not any("running" in name for name in changed)


def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(start, tmp_path):
    whole, weights = tuned(start, tmp_path / "whole")

    def stop(metrics):
        if metrics.step == 9:
            raise Stopped

    with pytest.raises(Stopped):
        tuned(start, tmp_path / "broken", on_metrics=stop)
    assert torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=True)["step"] == 8
    seen = []
    resumed, again = tuned(start, tmp_path / "broken", on_metrics=seen.append)
    assert same(weights, again) and resumed == whole
    assert [metrics.step for metrics in seen] == [9, 12, 15, 18]
    records = [
        [json.loads(line) | {"images_per_s": 0} for line in path.read_text().splitlines()]
        for path in (tmp_path / "broken" / "metrics.jsonl", tmp_path / "whole" / "metrics.jsonl")
    ]
    assert [row["step"] for row in records[0]] == [3, 6, 9, 12, 15, 18]
    assert records[0] == records[1]
    finished, once_more = tuned(start, tmp_path / "broken")
    assert same(weights, once_more) and finished == whole


def test_a_run_is_told_from_others(start, tmp_path):
    tuned(start, tmp_path)
    with pytest.raises(ModelError, match=r"other options \(lr\)"):
        tuned(start, tmp_path, replace(OPTIONS, lr=1e-3))
    with pytest.raises(ModelError, match=r"other options \(pictures\)"):
        tuned(start, tmp_path, labels=LABELS[:3])
    with pytest.raises(ModelError, match=r"other options \(pictures\)"):
        tuned(start, tmp_path, rehearsed=material(load_clip(start)).learned[:3])


def embedded(clip, found):
    """Unit rows of the whole pictures."""
    features = torch.stack([torch.from_numpy(one.features[0]).float() for one in found])
    with torch.no_grad():
        return Halves(clip, 1, 1).eval().upper_images(features)


def likelihoods(clip, tokenizer, found, scale):
    """How likely each label is for each picture."""
    prompts = [f"a photo of a {label}." for label in LABELS]
    tokens = tokenizer.tokenize(prompts, clip.config.text.context_length)
    with torch.no_grad():
        labels = normalize(clip.encode_text(torch.from_numpy(tokens)), dim=-1)
    return (scale * embedded(clip, found) @ labels.T).softmax(dim=1)


def test_what_it_knew_is_kept(start, tmp_path):
    before, tokenizer = load_clip(start).eval(), Tokenizer.from_folder(start)
    known, scale = material(before), before.logit_scale.exp()
    old = likelihoods(before, tokenizer, known.learned, scale)

    def divergence(keep):
        options, clip = replace(OPTIONS, keep=keep, epochs=10), load_clip(start)
        finetune(clip, tokenizer, known, options, tmp_path / str(keep))
        now = likelihoods(clip.eval(), tokenizer, known.learned, scale)
        return (old * (old / now).log()).sum(dim=1).mean().item()

    assert 0 < divergence(4.0) < 0.5 * divergence(0.0)


def test_what_is_rehearsed_keeps_its_place(start, tmp_path):
    known = examples(LowerHalf(load_clip(start), 1, device="cpu", dtype="float32"), range(9, 14))
    before, tokenizer = embedded(load_clip(start), known), Tokenizer.from_folder(start)

    def moved(rehearsed):
        clip, options = load_clip(start), replace(OPTIONS, epochs=12)
        learned = material(clip, rehearsed=rehearsed)
        finetune(clip, tokenizer, learned, options, tmp_path / str(len(rehearsed)))
        return (1 - (embedded(clip, known) * before).sum(dim=1)).mean().item()

    assert 0 < moved(known) < 0.7 * moved([])


def test_small_models_learn_at_a_higher_rate():
    rates = [usual_rate(ClipConfig(64, VISION, TextConfig(64, 100, w, 4, 2))) for w in (256, 512)]
    assert rates == [1e-3, 1e-4]


def test_a_rate_of_zero_changes_nothing(start, tmp_path):
    found, weights = tuned(start, tmp_path, replace(OPTIONS, lr=0.0))
    assert found.before == found.after and found.agreement == 1
    assert same(weights, load_clip(start).state_dict())


def test_pictures_that_share_a_caption_are_not_told_apart(start, tmp_path):
    losses, options = [], replace(OPTIONS, keep=0.0, epochs=1, batch_size=30, log_every=1)
    for name in (str.upper, lambda colour: "same"):
        lower = LowerHalf(load_clip(start), 1, device="cpu", dtype="float32")
        learned = examples(lower, range(5), name)
        tuned(start, tmp_path / str(len(losses)), options, losses.append, learned=learned)
    apart, alike = (metrics.loss for metrics in losses)
    assert apart > 1 and alike == pytest.approx(0, abs=1e-6)  # nothing left to be told from


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(start, tmp_path, monkeypatch):
    times = count()
    monkeypatch.setattr(
        module,
        "contrastive_loss",
        lambda *given: contrastive_loss(*given) * (math.nan if next(times) == 6 else 1),
    )
    with pytest.raises(ModelError, match=r"loss is nan .* at step 6; lower .*weights of step 4"):
        tuned(start, tmp_path)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 4 and all(t.isfinite().all() for t in saved["tuned"].values())


def test_a_rate_that_is_far_too_high_is_named_before_anything_is_kept(start, tmp_path):
    with pytest.raises(ModelError, match="are not.* lower the learning rate") as told:
        tuned(start, tmp_path, replace(OPTIONS, lr=1e30, warmup=0.0, epochs=1, batch_size=30))
    assert f"no checkpoint has been written to {tmp_path}" in str(told.value)


def test_a_model_that_is_damaged_is_not_tuned(start, tmp_path):
    model, tokenizer = load_clip(start), Tokenizer.from_folder(start)
    model.text_projection.data.fill_(math.nan)
    with pytest.raises(ModelError, match="not finite after 0 updates; fetch the model again"):
        finetune(model, tokenizer, material(model), OPTIONS, tmp_path)


def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(start, tmp_path, monkeypatch):
    def stop(metrics):
        raise Stopped

    with pytest.raises(Stopped):
        tuned(start, tmp_path, replace(OPTIONS, save_every=1), stop)

    def full(state, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ModelError, match=r"cannot write .*checkpoint.pt.* is full"):
        tuned(start, tmp_path, replace(OPTIONS, save_every=1))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    assert not list(tmp_path.glob("*.part"))


def test_without_pictures_there_is_no_tuning(start, tmp_path):
    with pytest.raises(ModelError, match="needs captioned pictures"):
        tuned(start, tmp_path, learned=[])


def test_without_general_words_nothing_can_be_forgotten(start, tmp_path):
    found, _ = tuned(start, tmp_path, replace(OPTIONS, keep=0.0), labels=(), general=[])
    assert (found.agreement, found.general) == (1.0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"tune": -1},
        {"epochs": 0},
        {"batch_size": 1},
        {"lr": math.nan},
        {"keep": -1.0},
        {"seed": -1},
    ],
)
def test_values_that_make_no_run_are_refused(changes):
    with pytest.raises(ModelError, match=next(iter(changes))):
        TuneOptions(**changes)


def test_figures_are_laid_out_for_machines():
    figures = Figures(3, 4, {1: 0.5, 10: 1.0}, {1: 0.0, 10: 0.5})
    assert figures.mean == 0.5
    found = json.loads(json.dumps(Comparison(figures, figures, 0.75, 9).to_dict()))
    assert found["agreement"] == 0.75 and found["after"]["text_to_image"] == {"1": 0.5, "10": 1.0}
