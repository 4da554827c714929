"""Join pretrained parts to a new CLIP, whose projections start where they already mean something.

For d, w and l see ``model.py``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.search.clip.checkpoints.checkpoint import some
from fovea.search.clip.checkpoints.shapes import expected_shapes, is_projection, tower_of
from fovea.search.clip.config import ClipConfig, EfficientNetConfig, VisionConfig, checked
from fovea.search.clip.datasets.pairs import LABEL_TEMPLATES
from fovea.search.clip.efficientnet import EfficientNetLite
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP, initialise
from fovea.search.clip.protocols import TextTokenizer

from .packaged import ImagePart, TextPart

__all__ = ["joined", "with_class_gain"]

TEMPLATES = LABEL_TEMPLATES[:3]  # for the names of classes
HEAD_WIDTH = 64  # of the heads by which queries attend, where d allows it


def joined(
    image: ImagePart,
    text: TextPart,
    *,
    embed_dim: int | None = None,
    image_size: int | None = None,
    hidden: int = 0,
    queries: int = 0,
    names: Sequence[Sequence[str]] = (),
) -> CLIP:
    """Return a CLIP of two parts, in float32, with new projections.

    ``embed_dim`` is by default the text part's width, ``image_size``, in pixels, the image part's.
    ``hidden`` and ``queries`` shape the head of an EfficientNet (see ``EfficientNetConfig``);
    ``names`` are those of its classes, whose mean embeddings by the text part help its head
    (Norouzi et al. 2013, arXiv:1312.5650, equation 5). Where the widths allow it the projections
    start as identities: an image then lies at the mean of its likely classes' names, and a text
    where the text part put it. Other weights of the projections are drawn at random.

    Raise ``ModelError`` for parts that do not fit together or lack tensors, and for a head or a
    size that the image part cannot have.
    """
    d = embed_dim or text.text.width
    config = ClipConfig(
        d,
        _vision(
            image,
            text,
            embed_dim=d,
            image_size=image_size,
            hidden=hidden,
            queries=queries,
            names=names,
        ),
        text.text,
        mean=image.mean,
        std=image.std,
        fit=image.fit,
        resize=0 if image_size and image_size != image.vision.image_size else image.resize,
        resampling=image.resampling,
    )
    activation = image.activation or text.activation
    if activation and text.activation not in (None, activation):
        raise ModelError(
            f"the image part uses {image.activation} and the text part {text.activation}; choose "
            "two that use the same"
        )
    if activation:
        config = replace(config, activation=activation)
    model = CLIP(checked(config))
    initialise(model)
    _load(model, image.state, "image")
    _load(model, text.state, "text")
    _start_projections(model, text.tokenizer, names)
    return model


@torch.no_grad()
def with_class_gain(model: CLIP, gain: float | None) -> CLIP:
    """Return the model with class names of length ``gain`` in its head; None leaves them.

    The longer they are, the more an image lies where its likely classes' names do: names are then
    known better, and whole sentences worse. Raise ``ModelError`` if the model has none.
    """
    if gain is None:
        return model
    visual = model.visual
    if not isinstance(visual, EfficientNetLite) or not visual.classes:
        raise ModelError("class_gain is for a model with class names; leave it out")
    visual.class_embedding.copy_(F.normalize(visual.class_embedding, dim=-1) * gain)
    return model


def _vision(
    image: ImagePart,
    text: TextPart,
    *,
    embed_dim: int,
    image_size: int | None,
    hidden: int,
    queries: int,
    names: Sequence[Sequence[str]],
) -> VisionConfig | EfficientNetConfig:
    """Return the configuration of the image tower with its new head."""
    vision = image.vision
    if isinstance(vision, EfficientNetConfig):
        if names and not image.classes:
            raise ModelError("class names need an image part with its classifier; leave them out")
        if names and len(names) != image.classes:
            raise ModelError(
                f"there are {len(names)} class names, but the image part's classifier has "
                f"{image.classes} classes"
            )
        return replace(
            vision,
            image_size=image_size or vision.image_size,
            classes=len(names),
            class_width=text.text.width if names else 0,
            hidden=hidden,
            queries=queries,
            heads=_heads(embed_dim) if queries else vision.heads,
        )
    if names or hidden or queries:
        raise ModelError(
            "class_names, hidden and queries are for an EfficientNet as image part; leave them out"
        )
    if image_size not in (None, vision.image_size):
        raise ModelError(
            f"the image part takes images of {vision.image_size} pixels a side, not {image_size}; "
            "only an EfficientNet takes any size"
        )
    return vision


def _heads(width: int) -> int:
    """Return into how many heads of ``HEAD_WIDTH`` or more this width divides."""
    most = max(1, width // HEAD_WIDTH)
    return max(heads for heads in range(1, most + 1) if width % heads == 0)


def _load(model: CLIP, state: Mapping[str, Tensor], tower: str) -> None:
    """Copy a part's tensors into the model, but for a classifier that it does not use.

    Raise ``ModelError`` unless they are exactly those of the tower below its projection.
    """
    expected = {
        name: shape
        for name, shape in expected_shapes(model.config).items()
        if tower_of(name) == tower and not _is_new(name, model)
    }
    wanted = {n: t for n, t in state.items() if n in expected or not n.startswith("visual.fc.")}
    missing = [n for n in expected if n not in wanted and not n.endswith("num_batches_tracked")]
    if missing:
        raise ModelError(f"the {tower} part lacks {some(missing)}; it is damaged")
    for name, tensor in wanted.items():
        shape = expected.get(name)
        if shape != tuple(tensor.shape):
            told = f"not {shape}" if shape is not None else "which its tower does not have"
            raise ModelError(f"the {tower} part has {name} {tuple(tensor.shape)}, {told}")
    model.load_state_dict(wanted, strict=False)


def _is_new(name: str, model: CLIP) -> bool:
    """Whether a tensor of the model is in neither part."""
    lite = isinstance(model.visual, EfficientNetLite)
    return is_projection(name) or (lite and name == "visual.class_embedding")


@torch.no_grad()
def _start_projections(
    model: CLIP, tokenizer: TextTokenizer, names: Sequence[Sequence[str]]
) -> None:
    """Start the projections as identities where they can be, and what is added to them at zero."""
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
        if width == d:  # the last rows read the mean of the names
            torch.nn.init.zeros_(visual.projection.proj)
            torch.nn.init.eye_(visual.projection.proj[-width:])


def _mean_embeddings(
    model: CLIP, tokenizer: TextTokenizer, names: Iterable[Sequence[str]]
) -> Tensor:
    """Return unit rows (classes, w): the mean over each class's names in several prompts."""
    rows = []
    for each in names:
        prompts = [template.format(name) for name in each for template in TEMPLATES]
        tokens = tokenizer.tokenize(prompts, model.config.text.context_length)
        tokens = tokens[:, : int(tokenizer.lengths(tokens).max())]
        rows.append(F.normalize(model.pool_text(torch.from_numpy(tokens)), dim=-1).mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1)
