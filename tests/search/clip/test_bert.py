"""The BERT against ``transformers.BertModel``, padding and the mean included."""

import pytest
import torch

from fovea.search.clip.bert import text_lengths
from fovea.search.clip.config import BertConfig, ClipConfig
from fovea.search.clip.model import CLIP
from small_clips import LITE

transformers = pytest.importorskip("transformers", reason="needs the extra 'transformers'")

SMALL = BertConfig(context_length=20, vocab_size=50, width=48, heads=4, layers=3)
ONE_SEGMENT = BertConfig(context_length=9, vocab_size=30, width=16, heads=1, layers=1, segments=1)
LENGTHS = (2, 9, 5, 9)


def theirs(config):
    """A random BERT of ``transformers``; every value is drawn, so that each matters."""
    torch.manual_seed(7)
    model = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
            max_position_embeddings=config.context_length,
            type_vocab_size=config.segments,
        ),
        add_pooling_layer=False,
    ).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(torch.randn_like(tensor) * (0.2 if tensor.dim() == 1 else 0.15))
            if name.endswith("LayerNorm.weight"):
                tensor += 1
    return model


def ours(config, model):
    state = {name: t for name, t in model.state_dict().items() if not name.endswith("_ids")}
    clip = CLIP(ClipConfig(8, LITE, config)).eval()
    clip.bert.load_state_dict(state)
    return clip


def padded(config):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, config.vocab_size, (len(LENGTHS), 9), generator=generator)
    for row, length in zip(tokens, LENGTHS, strict=True):
        row[length:] = 0
    return tokens


@torch.no_grad()
@pytest.mark.parametrize("config", [SMALL, ONE_SEGMENT])
def test_it_equals_the_mean_of_transformers_outputs(config):
    model, tokens = theirs(config), padded(config)
    mask = (tokens != 0).long()
    hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state
    want = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    found = ours(config, model).pool_text(tokens)
    assert (found - want).abs().max() < 1e-5
    assert (found[0] - found[1]).abs().max() > 0.1


@torch.no_grad()
def test_padding_changes_nothing():
    clip, tokens = ours(SMALL, theirs(SMALL)), padded(SMALL)
    for row, length, together in zip(tokens, LENGTHS, clip.pool_text(tokens), strict=True):
        assert (clip.pool_text(row[None, :length])[0] - together).abs().max() < 1e-5


def test_a_padding_token_within_a_text_belongs_to_it():
    tokens = torch.tensor([[5, 0, 7, 0, 0], [5, 7, 0, 0, 0], [5, 6, 7, 8, 9]])
    assert text_lengths(tokens).tolist() == [3, 2, 5]
