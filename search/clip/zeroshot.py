"""Classify images by class names alone (Radford et al. 2021, section 3.1)."""

from collections.abc import Sequence

import numpy as np

from .protocols import TextEncoder

PLAIN_TEMPLATE = "a photo of a {}."


def class_embeddings(
    encoder: TextEncoder, labels: Sequence[str], templates: Sequence[str] = (PLAIN_TEMPLATE,)
) -> np.ndarray:
    """Return a float32 unit row per label (n, d): the normalised mean over its prompts.

    ``{}`` in a template stands for the label (section 3.1.4 of the paper). Raise ``ValueError``
    without templates.
    """
    if not templates:
        raise ValueError("an ensemble needs at least one template")
    prompts = [template.replace("{}", label) for label in labels for template in templates]
    rows = encoder.encode_texts(prompts)
    means = rows.reshape(len(labels), len(templates), rows.shape[-1]).mean(axis=1)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return (means / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)


def class_probabilities(images: np.ndarray, classes: np.ndarray, logit_scale: float) -> np.ndarray:
    """Return float32 (n, c): how likely each class is for each image; rows add up to 1.

    ``images`` (n, d) and ``classes`` (c, d) are unit rows; the probabilities are the softmax of
    ``logit_scale`` times their cosines.
    """
    logits = logit_scale * (images.astype(np.float64) @ classes.T.astype(np.float64))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
