"""Join pretrained parts to a new CLIP, whose heads start where they already mean something."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.search.clip.config import ClipConfig, EfficientNetConfig, checked
from fovea.search.clip.datasets.pairs import LABEL_TEMPLATES
from fovea.search.clip.efficientnet import EfficientNetLite
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP, initialise
from fovea.search.clip.protocols import TextTokenizer

from .packaged import ImagePart, TextPart

__all__ = ["joined"]

TEMPLATES = LABEL_TEMPLATES[:3]  # for the names of classes


def joined(
    image: ImagePart,
    text: TextPart,
    *,
    embed_dim: int,
    image_size: int | None = None,
    hidden: int = 0,
    queries: int = 0,
    names: Sequence[Sequence[str]] = (),
) -> CLIP:
    """Return a CLIP of two parts, in float32, with new projections.

    ``hidden`` and ``queries`` shape the head of an EfficientNet (see ``EfficientNetConfig``);
    ``names`` are those of its classes, whose mean embeddings by the text part help its head
    (Norouzi et al. 2013, arXiv:1312.5650). Where the widths allow it the projections start as
    identities: an image then lies at the mean of its likely classes' names, and a text where the
    text part put it. Raise ``ModelError`` for a head that the image part cannot have.
    """
    vision = image.vision
    if isinstance(vision, EfficientNetConfig):
        classes, width = len(names), text.text.width if names else 0
        if names and not image.classifies:
            raise ModelError("class names need an image part with its classifier")
        if names and classes != len(image.state["visual.fc.bias"]):
            raise ModelError(f"{classes} class names do not fit the image part's classifier")
        vision = replace(vision, classes=classes, class_width=width, hidden=hidden, queries=queries)
    elif names or hidden or queries:
        raise ModelError("class names, hidden and queries are for an EfficientNet's head")
    if (
        image_size
        and not isinstance(vision, EfficientNetConfig)
        and image_size != vision.image_size
    ):
        raise ModelError("only an EfficientNet takes images of another size than it was trained on")
    vision = replace(vision, image_size=image_size or vision.image_size)
    config = ClipConfig(embed_dim, vision, text.text, mean=image.mean, std=image.std)
    model = CLIP(checked(config))
    initialise(model)
    _load(model, image.state, skip=() if names else ("visual.fc.",))
    _load(model, text.state)
    _start_heads(model, text.tokenizer, names)
    return model


def _load(model: CLIP, state: dict[str, Tensor] | object, skip: tuple[str, ...] = ()) -> None:
    """Copy a part's tensors; raise ``ModelError`` if the model has others or other shapes."""
    assert isinstance(state, dict)
    own = model.state_dict()
    for name, tensor in state.items():
        if skip and name.startswith(skip):
            continue
        if name not in own or own[name].shape != tensor.shape:
            raise ModelError(f"a part has {name} {tuple(tensor.shape)}, which does not fit it")
    model.load_state_dict({n: t for n, t in state.items() if n in own}, strict=False)


@torch.no_grad()
def _start_heads(model: CLIP, tokenizer: TextTokenizer, names: Sequence[Sequence[str]]) -> None:
    width, d = model.text_projection.shape
    if width == d:
        torch.nn.init.eye_(model.text_projection)
    visual = model.visual
    if not isinstance(visual, EfficientNetLite):
        return
    if visual.projection.hidden:
        torch.nn.init.zeros_(visual.projection.c_proj.weight)
        torch.nn.init.zeros_(visual.projection.c_proj.bias)
    if visual.querypool:
        torch.nn.init.zeros_(visual.querypool.c_proj.weight)
        torch.nn.init.zeros_(visual.querypool.c_proj.bias)
    if names:
        visual.class_embedding.copy_(_mean_embeddings(model, tokenizer, names))
        if width == d:
            torch.nn.init.zeros_(visual.projection.proj)
            torch.nn.init.eye_(visual.projection.proj[-width:])


def _mean_embeddings(
    model: CLIP, tokenizer: TextTokenizer, names: Iterable[Sequence[str]]
) -> Tensor:
    """Return unit rows (classes, w): the mean of each class's names in several prompts."""
    rows = []
    for each in names:
        prompts = [template.format(name) for name in each for template in TEMPLATES]
        tokens = tokenizer.tokenize(prompts, model.config.text.context_length)
        tokens = tokens[:, : int(tokenizer.lengths(tokens).max())]
        rows.append(F.normalize(_pooled(model, torch.from_numpy(tokens)), dim=-1).mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1)


def _pooled(model: CLIP, tokens: Tensor) -> Tensor:
    """Return the text tower's output (n, w) before its projection."""
    lengths = model.text_lengths(tokens)
    x = model.text_stem(tokens)
    mask = model.text_mask(x, lengths)
    for block in model.text_blocks:
        x = block(x, mask)
    return model.text_pool(x, lengths)
