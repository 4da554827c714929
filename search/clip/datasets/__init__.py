"""Labelled and captioned images in folders and tar files.

May import ``clip``. Start reading at ``pairs.py``.
"""
