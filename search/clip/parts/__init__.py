"""Pretrained networks as parts of a new model.

May import ``clip``, ``checkpoints`` and ``datasets``. ``packaged.py`` opens parts, ``joining.py``
makes a CLIP of two.
"""
