"""What the tests of one subject share."""

import warnings

import torch

from small_clips import (
    TEXT,
)


def hub_model(activation="quick_gelu", *, seed=0):
    """A random ``transformers.CLIPModel`` of the shape of ``VIT``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import CLIPConfig, CLIPModel

        text = {
            "vocab_size": TEXT.vocab_size,
            "hidden_size": TEXT.width,
            "intermediate_size": 4 * TEXT.width,
            "num_hidden_layers": TEXT.layers,
            "num_attention_heads": TEXT.heads,
            "max_position_embeddings": TEXT.context_length,
            "hidden_act": activation,
            "bos_token_id": TEXT.vocab_size - 2,
            "eos_token_id": TEXT.vocab_size - 1,
            "pad_token_id": 0,
        }
        vision = {
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
            "hidden_act": activation,
        }
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=48)
        model = CLIPModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.dim() > 1:
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
            elif name != "logit_scale":
                tensor.copy_(0.2 * noise + (1 if "norm" in name and "weight" in name else 0))
    return model
