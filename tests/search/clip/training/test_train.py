import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import count

import pytest
import torch
from safetensors.torch import load_file

from coloured import (
    COLOURS,
    RESNET,
    captioned_source,
    encoded,
    labelled_source,
    tiny_run,
    write_tar,
)
from fovea.search.clip.datasets.pairs import PairSource, open_pairs
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.clip.errors import ModelError
from fovea.search.clip.evaluation.evaluate import embed_pairs
from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.clip.training import learner as learner_module
from fovea.search.clip.training.augment import Augmentation
from fovea.search.clip.training.learner import Learner
from fovea.search.clip.training.losses import contrastive_loss
from fovea.search.clip.training.recipe import read_recipe
from fovea.search.clip.training.train import learning_rate, train


class Stopped(Exception):
    """Stands for a kill between two steps."""


def weights(folder):
    return load_file(folder / "model.safetensors")


def saved_state(options):
    return torch.load(options.out / "checkpoint.pt", weights_only=True)["model"]


def record(options):
    """The lines of a run's record, without what time it took."""
    lines = (options.out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) | {"images_per_s": 0} for line in lines]


def recorded_steps(options):
    return [row["step"] for row in record(options)]


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("vision", [None, RESNET], ids=["vit", "resnet"])
def test_training_learns_which_words_go_with_which_picture(tmp_path, vision):
    changes = {"vision": vision} if vision else {}
    options = tiny_run(tmp_path, samples=24 * 60, batch_size=24, log_every=10, **changes)
    record = []
    folder = train(options, record.append)
    assert record[-1].loss < 0.6 * record[0].loss
    source = options.sources[0]
    encoder = load_encoder(folder, device="cpu", dtype="float32")
    found = embed_pairs(encoder, open_pairs(source)).figures()
    assert found.text_to_image[10] > 0.8  # 4 of 24 images are right in kind; chance is 0.42
    assert found.image_to_text[10] > 0.8  # 8 of 48 captions fit each image; chance is 0.38


def test_a_run_writes_one_json_line_an_interval(tmp_path):
    options = tiny_run(tmp_path)
    seen = []
    train(options, seen.append)
    lines = (options.out / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [2, 4, 6] == [metrics.step for metrics in seen]
    assert rows[-1]["samples"] == 48 and rows[-1]["steps"] == 6
    assert set(rows[0]) >= {"loss", "lr", "scale", "images_per_s"}


def test_a_broken_run_resumes_to_the_same_weights_bit_for_bit(tmp_path):
    whole = tiny_run(tmp_path, out=tmp_path / "whole")
    train(whole)

    def stop(metrics):
        if metrics.step == 4:
            raise Stopped

    broken = replace(whole, out=tmp_path / "broken")
    with pytest.raises(Stopped):
        train(broken, stop)
    assert torch.load(broken.out / "checkpoint.pt", weights_only=True)["step"] == 2
    assert recorded_steps(broken) == [2, 4]
    train(replace(broken, workers=3, cache_gb=0.0))  # which change nothing but the speed
    assert recorded_steps(broken) == [2, 4, 6]
    assert same(saved_state(whole), saved_state(broken))
    assert same(weights(whole.out / "model"), weights(broken.out / "model"))


def test_a_resumed_runs_record_is_that_of_an_unbroken_one(tmp_path):
    whole = tiny_run(tmp_path, out=tmp_path / "whole", log_every=3)
    train(whole)

    def stop(metrics):
        raise Stopped

    broken = replace(whole, out=tmp_path / "broken")
    with pytest.raises(Stopped):
        train(broken, stop)
    assert torch.load(broken.out / "checkpoint.pt", weights_only=True)["step"] == 2
    train(broken)
    assert recorded_steps(whole) == [3, 6] and record(whole) == record(broken)


RECIPE = """
embed_dim = 16
merges = 40
batch_size = 8
samples = 48
log_every = 3
save_every = 2
workers = 1
device = "cpu"
dtype = "float32"
vision = { image_size = 32, patch_size = 16, layers = 1, width = 32, heads = 2 }
text = { width = 32, heads = 2, layers = 1, context_length = 16 }
sources = [{ images = ["squares.tar"], captions = "captions.jsonl" }]
"""
KILLED = """
import os, signal, fovea.cli
import fovea.search.clip.training.learner, fovea.search.clip.training.run_folder

owner, name, left = {owner}, "{name}", iter(range({calls}))
plain = getattr(owner, name)

def killed(*values):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*values)

setattr(owner, name, killed)
fovea.cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems have SIGKILL")
@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        ("fovea.search.clip.training.learner.Learner", "update", 5),
        ("os", "fsync", 2),  # of the second checkpoint: each needs two, of the file and its folder
    ],
    ids=["between steps", "while a checkpoint is written"],
)
def test_a_killed_command_goes_on_to_the_same_weights_bit_for_bit(tmp_path, owner, name, calls):
    captioned_source(tmp_path)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    whole = read_recipe(tmp_path / "recipe.toml", out=tmp_path / "whole")
    train(whole)
    broken = replace(whole, out=tmp_path / "broken")
    code = KILLED.format(owner=owner, name=name, calls=calls)
    words = ["train", "--recipe", tmp_path / "recipe.toml", "--out", broken.out]
    child = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    step = torch.load(broken.out / "checkpoint.pt", weights_only=True)["step"]
    assert (step, (broken.out / "model").exists()) == (4 if name == "update" else 2, False)
    train(broken)
    assert record(whole) == record(broken)
    assert same(saved_state(whole), saved_state(broken))
    assert same(weights(whole.out / "model"), weights(broken.out / "model"))


def test_a_run_stopped_on_its_way_goes_on_as_if_it_had_not(tmp_path):
    whole = tiny_run(tmp_path, out=tmp_path / "whole")
    train(whole)
    parts = replace(whole, out=tmp_path / "parts")
    half = weights(train(replace(parts, stop_after=3)))
    assert torch.load(parts.out / "checkpoint.pt", weights_only=True)["step"] == 3
    assert not same(half, weights(train(parts)))
    assert same(saved_state(whole), saved_state(parts))


def test_a_finished_run_is_not_trained_again(tmp_path):
    options = tiny_run(tmp_path)
    before = weights(train(options))
    assert same(before, weights(train(options)))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    options = tiny_run(tmp_path)
    train(options)
    for changes, told in (
        ({"lr": 1e-4}, "lr"),
        ({"augmentation": Augmentation(flip=0)}, "augmentation"),
        ({"merges": 20}, "config, vocabulary"),
    ):
        with pytest.raises(ModelError, match=rf"other options \({told}\)"):
            train(replace(options, **changes))


def test_a_checkpoint_from_before_newer_options_resumes_a_run_without_them(tmp_path):
    whole = tiny_run(tmp_path, out=tmp_path / "whole")
    train(whole)
    options = replace(whole, out=tmp_path / "parts")
    train(replace(options, stop_after=3))
    saved = torch.load(options.out / "checkpoint.pt", weights_only=True)
    newer = ("image_tower", "text_tower", "tune_image", "tune_text", "image_lr", "text_lr", "views")
    for name in (*newer, "class_gain", "distil", "virtual", "classes_drawn", "average"):
        del saved["run"][name]
    saved["run"]["tune"] = "all"
    torch.save(saved, options.out / "checkpoint.pt")
    with pytest.raises(ModelError, match=r"other options \(average, image_lr\)"):
        train(replace(options, average=0.5, image_lr=1e-4))
    train(options)
    assert same(saved_state(whole), saved_state(options))


def test_a_checkpoint_of_other_captions_is_refused(tmp_path):
    options = tiny_run(tmp_path)
    train(options)
    path = options.sources[0].captions
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    texts = [row["captions"] for row in rows]
    turned = [row | {"captions": text} for row, text in zip(rows, texts[1:] + texts, strict=False)]
    path.write_text("\n".join(map(json.dumps, turned)))
    with pytest.raises(ModelError, match=r"other options \(data\)"):
        train(options)


def test_a_checkpoint_that_began_with_another_model_is_refused(tmp_path):
    one, two = (train(tiny_run(tmp_path, out=tmp_path / str(n), seed=n)) for n in (1, 2))
    tuned = tiny_run(tmp_path, init=one)
    train(tuned)
    with pytest.raises(ModelError, match=r"other options \(init\)"):
        train(replace(tuned, init=two))
    train(replace(tuned, init=one.rename(tmp_path / "moved")))


def test_a_batch_that_does_not_split_is_refused(tmp_path):
    with pytest.raises(ModelError, match="multiple"):
        train(tiny_run(tmp_path, accumulate=3))


@pytest.mark.parametrize("vision", [None, RESNET], ids=["vit", "resnet"])
def test_fine_tuning_changes_only_the_last_blocks_and_projections(tmp_path, vision):
    changes = {"vision": vision} if vision else {}
    start = train(tiny_run(tmp_path, out=tmp_path / "start", **changes))
    tuned = train(tiny_run(tmp_path, out=tmp_path / "tuned", init=start, tune="1"))
    before, after = weights(start), weights(tuned)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    last = "visual.layer4.0." if vision else "visual.transformer.resblocks.0."
    allowed = ("visual.attnpool.", "visual.proj", "visual.ln_post.", "transformer.resblocks.0.")
    allowed += (last, "ln_final.", "text_projection", "logit_scale")
    assert "text_projection" in changed and any(name.startswith(last) for name in changed)
    assert all(name.startswith(allowed) for name in changed)
    assert not any("running" in name for name in changed)


def test_fine_tuning_keeps_the_models_own_vocabulary(tmp_path):
    start = train(tiny_run(tmp_path, out=tmp_path / "start"))
    tuned = train(tiny_run(tmp_path, out=tmp_path / "tuned", init=start))
    assert Tokenizer.from_folder(start).merges == Tokenizer.from_folder(tuned).merges


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    options = tiny_run(tmp_path, lr=1e25, warmup=0.0, save_every=1, samples=800)
    with pytest.raises(ModelError, match=r"loss is .* at step \d+"):
        train(options)


def test_nothing_to_train_on_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="nothing to train on"):
        train(tiny_run(tmp_path, sources=()))


def test_the_rate_rises_then_falls_to_zero():
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[55] == pytest.approx(0.5, abs=1e-6)
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[-1] < 0.001


def test_shards_can_be_trained_on(tmp_path):
    files = {}
    for number, colour in enumerate(COLOURS):
        files[f"{number:03}.png"] = encoded(colour)
        files[f"{number:03}.txt"] = f"a {colour} square".encode()
    shard = write_tar(tmp_path / "0.tar", files)
    folder = train(tiny_run(tmp_path, sources=(PairSource((shard,)),), samples=16))
    assert (folder / "model.safetensors").is_file()


def test_only_the_split_that_is_named_is_seen(tmp_path):
    source = replace(captioned_source(tmp_path), split="train")
    options = tiny_run(tmp_path, sources=(source,))
    train(options)
    run = torch.load(options.out / "checkpoint.pt", weights_only=True)["run"]
    assert run["pairs"] == [18]


def test_a_vocabulary_that_is_not_the_models_is_refused(tmp_path):
    start = train(tiny_run(tmp_path, out=tmp_path / "start", samples=8))
    Tokenizer([]).save(start)
    with pytest.raises(ModelError, match="has 514 entries but the model has"):
        train(tiny_run(tmp_path, init=start))


def test_fine_tuning_may_change_the_size_of_images(tmp_path):
    start = train(tiny_run(tmp_path, out=tmp_path / "start", samples=8))
    bigger = train(tiny_run(tmp_path, init=start, image_size=48, samples=8))
    assert load_encoder(bigger, device="cpu").preprocess.size == 48


@pytest.mark.parametrize("dtype", ["float16", "int8", 3])
def test_other_precisions_are_refused_before_anything_is_trained(tmp_path, dtype):
    with pytest.raises(ModelError) as told:
        train(tiny_run(tmp_path, dtype=dtype))
    assert str(told.value) == f"cannot train in {dtype}; choose auto, bfloat16 or float32"


def test_a_full_disk_stops_the_run_in_one_line_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    options = tiny_run(tmp_path)
    train(replace(options, stop_after=2))

    def full(state, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ModelError, match="cannot write .*checkpoint.pt.* is full"):
        train(options)
    assert torch.load(options.out / "checkpoint.pt", weights_only=True)["step"] == 2


def test_an_announcement_that_is_not_complete_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError, match="'RANK'; start them with torchrun"):
        train(tiny_run(tmp_path))


def test_a_run_is_measured_on_its_way_without_being_changed(tmp_path):
    source = captioned_source(tmp_path)
    (tmp_path / "more").mkdir()
    labelled = labelled_source(tmp_path / "more")
    options = tiny_run(tmp_path, sources=(replace(source, split="train"),), vision=RESNET)
    plain = weights(train(options))
    measure = (replace(source, split="dev"), labelled)
    seen = []
    measured = replace(options, out=tmp_path / "measured", measure=measure, measure_every=3)
    folder = train(measured, seen.append)
    assert same(plain, weights(folder))
    assert [metrics.step for metrics in seen] == [2, 3, 4, 6]
    assert [sorted(metrics.held_out) for metrics in seen[:2]] == [
        [],
        [*(f"captions: recall@{k}" for k in (1, 10, 5)), "labels: top-1", "labels: top-5"],
    ]
    encoder = load_encoder(folder, device="cpu", dtype="float32")
    found = embed_pairs(encoder, open_pairs(replace(source, split="dev"))).figures()
    for k, share in found.text_to_image.items():
        assert seen[-1].held_out[f"captions: recall@{k}"] == pytest.approx(share, abs=0.09)
    found = embed_pairs(encoder, open_pairs(labelled)).figures()
    assert seen[-1].held_out["labels: top-1"] == pytest.approx(found.top1, abs=0.09)


def test_images_that_cannot_be_read_are_counted(tmp_path):
    source = captioned_source(tmp_path)
    files = {f"{colour}0.png": encoded(colour) for colour in COLOURS} | {"red1.png": b"\x89PNG no"}
    write_tar(tmp_path / "squares.tar", files)
    seen = []
    train(tiny_run(tmp_path, sources=(source,), cache_gb=0.0), seen.append)
    assert seen[-1].left_out == 1


def test_what_has_no_words_is_counted_in_the_record(tmp_path):
    source = captioned_source(tmp_path)
    lines = source.captions.read_text().splitlines()
    rows = [json.dumps(json.loads(line) | {"captions": texts}) for line, texts in
            zip(lines, ([""], ["a red square", " "]), strict=False)]  # fmt: skip
    source.captions.write_text("\n".join(rows + lines[2:]))
    options = tiny_run(tmp_path, sources=(source,))
    train(options)
    for line in (options.out / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert (row["empty_captions"], row["without_words"], row["left_out"]) == (2, 1, 0)


def test_a_run_that_diverges_says_what_is_left_of_it(tmp_path, monkeypatch):
    options = tiny_run(tmp_path)
    monkeypatch.setattr(learner_module, "contrastive_loss", diverging(at=4))
    with pytest.raises(ModelError, match=r"loss is nan .* step 4.*has the weights of step 4; .*"):
        train(options)
    monkeypatch.undo()
    left = train(replace(options, stop_after=4))
    assert all(tensor.isfinite().all() for tensor in weights(left).values())
    assert json.loads((options.out / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 4


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    plain = Learner.update

    def spoilt(learner, batch, rate):
        loss = plain(learner, batch, rate)
        if batch.step == 5:
            learner.model.text_projection.data[0, 0] = float("inf")
        return loss

    monkeypatch.setattr(Learner, "update", spoilt)
    options = tiny_run(tmp_path)
    with pytest.raises(ModelError, match=r"text_projection has .* not finite; .* --stop-after 4$"):
        train(options)
    assert saved_state(options)["text_projection"].isfinite().all()


def test_a_run_that_diverges_at_once_has_nothing_left(tmp_path, monkeypatch):
    monkeypatch.setattr(learner_module, "contrastive_loss", diverging(at=0))
    with pytest.raises(ModelError, match="no checkpoint has been written"):
        train(tiny_run(tmp_path))


def diverging(at):
    """The contrastive loss, but not a number the ``at``-th time."""
    times = count()
    return lambda *given: contrastive_loss(*given) * (math.nan if next(times) == at else 1)
