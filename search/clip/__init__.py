"""CLIP itself (Radford et al. 2021, arXiv:2103.00020): towers, tokenizer, preprocessing, training.

Rooms, each importing only those before it: the modules here, ``checkpoints`` (weights in any
dialect), ``engines`` (which one embeds pictures fastest), ``encoders`` (inference), ``datasets``
(captioned and labelled images), ``evaluation``, ``training``, ``finetuning``. Nothing here imports
other rooms of fovea.

Start reading at ``model.py``.
"""
