"""Weights in any dialect: the original archives, ``transformers`` folders, open_clip files.

May import the modules of ``clip``. Start reading at ``checkpoint.py``: it finds, checks and reads;
``dialects.py`` knows the names, ``shapes.py`` the tensors.
"""
