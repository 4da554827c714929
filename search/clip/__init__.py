"""CLIP itself (Radford et al. 2021, arXiv:2103.00020): towers, tokenizer, preprocessing, training.

Rooms, each importing only those before it: the modules here, ``checkpoints`` (weights in any
dialect), ``encoders`` (inference), ``datasets`` (images with words), ``evaluation``, ``training``,
``finetuning``. Nothing here imports anything else of fovea's.

Start reading at ``model.py``.
"""
