from dataclasses import replace

import pytest
import torch

from coloured import RESNET, tiny_run
from fovea.search.clip.training.muon import Muon, orthogonal
from fovea.search.clip.training.train import train
from learners import batch, learner, parts_learner


def close(one, other):
    """Whether two differ by no more than bfloat16 rounds, in the largest of them."""
    return (one - other).abs().max() < 0.02 * other.abs().max()


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
def test_singular_values_are_brought_near_one(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    out = orthogonal(matrix).float()
    sizes = torch.linalg.svdvals(out)
    assert 0.5 < sizes.min() and sizes.max() < 1.3
    along = (u.T @ out @ v.T).abs()  # the directions stay those of the matrix
    assert (along - along.diag().diag()).max() < 0.1


def test_a_zero_gradient_moves_nothing():
    assert torch.equal(orthogonal(torch.zeros(4, 6)), torch.zeros(4, 6, dtype=torch.bfloat16))


def test_matrices_move_as_with_pytorchs_own(tmp_path):
    theirs_of = getattr(torch.optim, "Muon", None)
    if theirs_of is None:
        pytest.skip("this PyTorch has no Muon to compare with; 2.9 and later do")
    torch.manual_seed(0)
    for shape in ((12, 20), (20, 12)):
        ours, theirs = torch.nn.Parameter(torch.randn(shape)), torch.nn.Parameter(torch.empty(0))
        theirs.data = ours.detach().clone()
        before = ours.detach().clone()
        one = Muon([ours], lr=0.1, weight_decay=0.3)
        other = theirs_of([theirs], lr=0.1, weight_decay=0.3, momentum=0.95)
        for _ in range(4):
            ours.grad = torch.randn(shape)
            theirs.grad = ours.grad.clone()
            one.step()
            other.step()
        assert close(ours - before, theirs - before)


def test_a_convolution_moves_as_the_matrix_of_its_output_channels():
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(
        torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    )
    matrix = torch.nn.Parameter(kernel.detach().reshape(8, 36).clone())
    gradient = torch.randn(8, 4, 3, 3)
    kernel.grad, matrix.grad = gradient, gradient.reshape(8, 36).clone()
    before = matrix.detach().clone()
    for weight in (kernel, matrix):
        Muon([weight], lr=0.1).step()
    assert close(kernel.reshape(8, 36) - before, matrix - before)


@pytest.mark.parametrize("vision", [None, RESNET], ids=["vit", "resnet"])
def test_muon_moves_the_hidden_matrices_and_adamw_the_rest(tmp_path, vision):
    one = learner(tmp_path, muon=0.02, lr=1e-3, **({"vision": vision} if vision else {}))
    names = {id(tensor): name for name, tensor in one.model.named_parameters()}
    moved = {
        name: [names[id(p)] for group in each.param_groups for p in group["params"]]
        for name, each in one.optimizers.items()
    }
    assert sorted(moved["adamw"] + moved["muon"]) == sorted(names.values())
    assert "transformer.resblocks.0.attn.in_proj_weight" in moved["muon"]
    inner = "layer1.0.conv2.weight" if vision else "transformer.resblocks.0.mlp.c_fc.weight"
    assert f"visual.{inner}" in moved["muon"]
    outer = {"token_embedding.weight", "visual.conv1.weight", "text_projection", "logit_scale"}
    assert outer <= set(moved["adamw"])
    assert all(one.model.get_parameter(name).ndim > 1 for name in moved["muon"])
    one.update(batch(), 1e-3)
    (group,) = one.optimizers["muon"].param_groups
    assert group["lr"] == pytest.approx(2e-2)


def test_muon_leaves_depthwise_convolutions_to_adamw(tmp_path, monkeypatch):
    one, _ = parts_learner(tmp_path / "more", monkeypatch, muon=0.02)
    names = {id(tensor): name for name, tensor in one.model.named_parameters()}
    (group,) = one.optimizers["muon"].param_groups
    moved = {names[id(tensor)] for tensor in group["params"]}
    assert {"visual.blocks.6.expand_conv.weight", "visual.blocks.6.project_conv.weight"} <= moved
    assert not any("depthwise" in name for name in moved)


def test_without_a_rate_of_its_own_muon_moves_nothing(tmp_path):
    assert list(learner(tmp_path).optimizers) == ["adamw"]


def test_a_run_with_muon_resumes_to_the_same_weights(tmp_path):
    whole = tiny_run(tmp_path, out=tmp_path / "whole", muon=0.02)
    parts = replace(whole, out=tmp_path / "parts")
    expected = torch.load(train(whole).parent / "checkpoint.pt", weights_only=True)
    train(replace(parts, stop_after=3))
    got = torch.load(train(parts).parent / "checkpoint.pt", weights_only=True)
    for name, tensor in expected["model"].items():
        assert torch.equal(tensor, got["model"][name]), name
