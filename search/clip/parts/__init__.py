"""Pretrained networks as the parts of a new model.

May import ``clip``, ``checkpoints`` and ``datasets``. Reading order:

1. ``packaged.py`` opens parts: from packages, or from folders.
2. ``joining.py`` joins an image part and a text part to a CLIP with new projections.
3. ``finishing.py`` mixes what was trained with what the parts were, before a model is written.
"""
