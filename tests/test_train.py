import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from coloured import RESNET, captioned_source, tiny_run
from search.clip.checkpoint import load_clip
from search.clip.config import ClipConfig
from search.clip.encoder import load_encoder
from search.clip.errors import ModelError
from search.clip.evaluate import measure_retrieval
from search.clip.model import CLIP, initialise
from search.clip.tokenizer import Tokenizer
from search.clip.train import learning_rate, make_optimizer, resized, train


class Stopped(Exception):
    """Stands for a kill between two steps."""


def weights(folder):
    return load_file(folder / "model.safetensors")


def saved_state(options):
    return torch.load(options.out / "checkpoint.pt", weights_only=True)["model"]


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
    found = measure_retrieval(encoder, source.captions, source.images)
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


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(tmp_path):
    whole = tiny_run(tmp_path, out=tmp_path / "whole")
    train(whole)

    def stop(metrics):
        if metrics.step == 4:
            raise Stopped

    broken = replace(whole, out=tmp_path / "broken")
    with pytest.raises(Stopped):
        train(broken, stop)
    assert torch.load(broken.out / "checkpoint.pt", weights_only=True)["step"] == 2
    train(broken)
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
    with pytest.raises(ModelError, match="other options"):
        train(replace(options, lr=1e-4))


def test_a_damaged_checkpoint_is_named(tmp_path):
    options = tiny_run(tmp_path)
    options.out.mkdir()
    (options.out / "checkpoint.pt").write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(ModelError, match="checkpoint.pt"):
        train(options)


def test_slices_of_a_batch_give_the_gradients_of_the_whole(tmp_path):
    plain = tiny_run(tmp_path, out=tmp_path / "plain", samples=32)
    sliced = replace(plain, out=tmp_path / "sliced", accumulate=4)
    train(plain)
    train(sliced)
    one, two = saved_state(plain), saved_state(sliced)
    for name in one:
        assert torch.allclose(one[name], two[name], atol=2e-5), name


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


def test_tune_takes_a_number_or_all(tmp_path):
    with pytest.raises(ModelError, match="'some'"):
        train(tiny_run(tmp_path, tune="some"))


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    options = tiny_run(tmp_path, lr=1e25, warmup=0.0, save_every=1, samples=800)
    with pytest.raises(ModelError, match=r"loss is (nan|inf) at step \d+"):
        train(options)


def test_the_temperature_is_clamped(tmp_path):
    start = train(tiny_run(tmp_path, out=tmp_path / "start"))
    state = weights(start)
    state["logit_scale"] = torch.tensor(9.0)
    from safetensors.torch import save_file

    save_file(state, start / "model.safetensors")
    options = tiny_run(tmp_path, out=tmp_path / "hot", init=start)
    train(options)
    assert saved_state(options)["logit_scale"] <= math.log(100) + 1e-6


def test_nothing_to_train_on_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="nothing to train on"):
        train(tiny_run(tmp_path, sources=()))


def test_the_rate_rises_then_falls_to_zero(tmp_path):
    options = tiny_run(tmp_path, samples=800, lr=1.0, warmup=0.1, sources=())
    rates = [learning_rate(step, options) for step in range(options.steps)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[55] == pytest.approx(0.5, abs=1e-6)
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[-1] < 0.001


def test_gains_and_biases_are_not_decayed(tmp_path):
    config = tiny_run(tmp_path, sources=()).config(600)
    decayed, spared = make_optimizer(CLIP(config), 0.1).param_groups
    assert decayed["weight_decay"] == 0.1 and all(p.ndim > 1 for p in decayed["params"])
    assert spared["weight_decay"] == 0 and all(p.ndim <= 1 for p in spared["params"])


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_another_input_size_interpolates_the_positions(tmp_path, name):
    options = tiny_run(tmp_path, sources=(), **({"vision": RESNET} if name == "resnet" else {}))
    model = CLIP(options.config(600))
    initialise(model)
    bigger = resized(model, 64)
    assert bigger.config.vision.image_size == 64
    assert bigger.encode_image(torch.rand(2, 3, 64, 64)).shape == (2, 16)
    pool = "attnpool." if name == "resnet" else ""
    rows = bigger.state_dict()[f"visual.{pool}positional_embedding"]
    assert len(rows) == (5 if name == "resnet" else 17)
    assert torch.equal(rows[0], model.state_dict()[f"visual.{pool}positional_embedding"][0])


def test_a_model_survives_being_written_and_read(tmp_path):
    folder = train(tiny_run(tmp_path))
    config = ClipConfig.from_dict(json.loads((folder / "config.json").read_text()))
    model = load_clip(folder)
    assert model.config == config
    state = weights(folder)
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, state[name].float()), name


def test_shards_can_be_trained_on(tmp_path):
    from coloured import COLOURS, encoded, write_tar
    from search.clip.pairs import Source

    files = {}
    for number, colour in enumerate(COLOURS):
        files[f"{number:03}.png"] = encoded(colour)
        files[f"{number:03}.txt"] = f"a {colour} square".encode()
    shard = write_tar(tmp_path / "0.tar", files)
    folder = train(tiny_run(tmp_path, sources=(Source((shard,)),), samples=16))
    assert (folder / "model.safetensors").is_file()


def test_only_the_split_that_is_named_is_seen(tmp_path):
    source = replace(captioned_source(tmp_path), split="train")
    options = tiny_run(tmp_path, sources=(source,))
    train(options)
    run = torch.load(options.out / "checkpoint.pt", weights_only=True)["run"]
    assert run["pairs"] == [18]
