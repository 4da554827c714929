"""Tune the last blocks of a model on features that are computed once.

May import every room of ``clip``. Start reading at ``finetune.py``; ``split.py`` cuts a model in
two, ``features.py`` keeps the features of images.
"""
