import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from closeness import assert_close
from coloured import RESNET, tiny_run
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP
from fovea.search.clip.training.learner import Average, make_adamw, rate_share, training_dtype
from learners import batch, learner

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


def gradients(one):
    return {name: tensor.grad for name, tensor in one.model.named_parameters()}


def images_seen(one, batch):
    """What the model is given to embed in an update that changes no weight."""
    seen = []
    handle = one.model.register_forward_pre_hook(lambda model, given: seen.append(given[0]))
    one.update(batch, 0.0)
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("slices", [2, 4, 8])
def test_slices_of_a_batch_give_the_gradients_of_the_whole(tmp_path, slices):
    whole, sliced = learner(tmp_path), learner(tmp_path, accumulate=slices)
    assert sliced.update(batch(), 0.0) == pytest.approx(whole.update(batch(), 0.0), abs=1e-5)
    for name, gradient in gradients(whole).items():  # their norm, over all weights, is 1 at most
        assert (gradient - gradients(sliced)[name]).abs().max() <= 1e-5, name


def test_slices_update_running_statistics_once_each(tmp_path):
    sliced = learner(tmp_path, accumulate=4, vision=RESNET)
    by_hand = learner(tmp_path, vision=RESNET)
    images = images_seen(learner(tmp_path, vision=RESNET), batch())
    sliced.update(batch(), 0.0)
    with torch.no_grad():
        for part in images.chunk(4):
            by_hand.model.encode_image(part)
    for one, two in zip(sliced.model.buffers(), by_hand.model.buffers(), strict=True):
        assert_close(one, two, terms=64)
    assert int(sliced.model.visual.bn1.num_batches_tracked) == 4


def test_an_update_lowers_the_loss(tmp_path):
    one = learner(tmp_path)
    losses = [one.update(batch(), 3e-3) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_a_state_that_is_restored_goes_on_the_same(tmp_path):
    one, two = learner(tmp_path), learner(tmp_path, seed=1)
    one.update(batch(), 1e-3)
    two.restore(deepcopy(one.state()))
    assert one.update(batch(seed=1), 1e-3) == two.update(batch(seed=1), 1e-3)
    states = one.model.state_dict(), two.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_pixels_are_normalised_after_their_colours_vary(tmp_path):
    one, plain = learner(tmp_path), batch()
    config = one.model.config
    pixels = plain.pixels.transpose(0, 3, 1, 2) / 255
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in (config.mean, config.std))
    assert_close(images_seen(one, plain), (pixels - mean) / std)
    grey = replace(plain, colours=np.float32([[1, 1, 0, 1]] * 8))
    shown = images_seen(one, grey).numpy() * std + mean
    assert_close(shown[:, 0], shown[:, 1])


def test_an_update_that_is_no_number_leaves_the_weights(tmp_path):
    one = learner(tmp_path)
    with torch.no_grad():
        one.model.text_projection[0, 0] = math.nan
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    with pytest.raises(ModelError, match="loss is nan and its gradient nan at step 0; lower"):
        one.update(batch(), 1e-3)
    after = one.model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before if n != "text_projection")


def test_the_temperature_is_clamped(tmp_path):
    one = learner(tmp_path)
    for start, end in ((9.0, 100.0), (-3.0, 1.0)):
        with torch.no_grad():
            one.model.logit_scale.fill_(start)
        one.update(batch(), 0.0)
        assert one.scale == pytest.approx(end)


def test_gains_and_biases_are_not_decayed(tmp_path):
    config = tiny_run(tmp_path, sources=()).config(600)
    decayed, spared = make_adamw(CLIP(config), 0.1).param_groups
    assert decayed["weight_decay"] == 0.1 and all(p.ndim > 1 for p in decayed["params"])
    assert spared["weight_decay"] == 0 and all(p.ndim <= 1 for p in spared["params"])


def test_a_wide_attention_pool_learns_slowly(tmp_path):
    one = learner(tmp_path, vision=RESNET | {"width": 16})  # 512 features into the pool
    names = {id(tensor): name for name, tensor in one.model.named_parameters()}
    shares = {"q_proj": 1 / 4, "k_proj": 1 / 4, "v_proj": 1 / 2, "c_proj": 1 / 2}
    seen = set()
    before = {name: tensor.detach().clone() for name, tensor in one.model.named_parameters()}
    one.update(batch(), 1e-3)
    for group in one.optimizers["adamw"].param_groups:
        for tensor in group["params"]:
            name = names[id(tensor)]
            part = name.removeprefix("visual.attnpool.").split(".")[0]
            expected = shares.get(part, 1 / 2 if "attnpool" in name else 1)
            assert group["share"] == rate_share(one.model, name) == expected, name
            # AdamW's first update is the rate, whatever the gradient, where there is one
            moved = (tensor.detach() - before[name]).abs().max().item()
            assert moved <= 1.01e-3 * expected + 1e-3 * 0.1 * before[name].abs().max(), name
            seen.add(name)
    assert seen == set(names.values())
    assert rate_share(learner(tmp_path, vision=RESNET).model, "visual.attnpool.q_proj.weight") == 1


@pytest.mark.parametrize(
    ("name", "device", "native", "dtype"),
    [
        ("float32", CPU, True, torch.float32),
        ("bfloat16", CPU, False, torch.bfloat16),
        ("auto", CUDA, True, torch.bfloat16),
        ("auto", CUDA, False, torch.float32),
        ("bfloat16", CUDA, True, torch.bfloat16),
        ("auto", MPS, True, torch.float32),
    ],
)
def test_precision_suits_the_device(monkeypatch, name, device, native, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert training_dtype(name, device) == dtype


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_half_precision_without_a_scale_is_refused(device):
    with pytest.raises(ModelError, match="cannot train in float16; choose auto"):
        training_dtype("float16", device)


@torch.no_grad()
def test_the_average_is_the_weighted_mean_of_the_weights_so_far(tmp_path):
    one = learner(tmp_path, average=0.8)
    weight, seen = one.model.text_projection, []
    for number in range(4):
        weight.fill_(number + 1.0)
        one.average.add()
        seen.append(number + 1.0)
    shares = [0.2 * 0.8 ** (3 - number) for number in range(4)]
    expected = sum(s * w for s, w in zip(shares, seen, strict=True)) / sum(shares)
    with one.averaged():
        assert_close(weight, torch.full_like(weight, expected))
    assert_close(weight, torch.full_like(weight, 4.0))


def test_the_weights_come_back_even_after_an_error(tmp_path):
    one = learner(tmp_path, average=0.5)
    one.update(batch(), 3e-3)
    one.update(batch(seed=1), 3e-3)
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    with pytest.raises(RuntimeError, match="while measuring"), one.averaged():
        assert not torch.equal(one.model.text_projection, before["text_projection"])
        raise RuntimeError("while measuring")
    after = one.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_average_of_nothing_is_the_weights_themselves(tmp_path):
    one = learner(tmp_path, average=0.5)
    before = one.model.text_projection.detach().clone()
    with one.averaged():
        assert torch.equal(one.model.text_projection, before)


def test_an_average_resumes_bit_for_bit(tmp_path):
    one, two = learner(tmp_path, average=0.9), learner(tmp_path, average=0.9, seed=1)
    one.update(batch(), 1e-3)
    two.restore(deepcopy(one.state()))
    for each in (one, two):
        each.update(batch(seed=1), 1e-3)
    assert isinstance(two.average, Average)
    assert all(map(torch.equal, one.average.rows, two.average.rows))


def test_without_an_average_the_weights_are_used(tmp_path):
    one = learner(tmp_path)
    with one.averaged():
        assert one.average is None and "average" not in one.state()
