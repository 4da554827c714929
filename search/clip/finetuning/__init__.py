"""Tune the last blocks of a model on features that are computed once.

May import ``clip``, ``encoders``, ``datasets``, ``evaluation`` and ``training``. Start reading at
``finetune.py``; ``features.py`` keeps the features of images.
"""
