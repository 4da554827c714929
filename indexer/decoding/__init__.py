"""Bytes to pixels, under limits of bytes, pixels, scans and memory. Never imports torch.

May import ``fovea.search``. Start reading at ``pillow.py``; ``formats.py`` is the table of formats,
``limits.py`` what one file may cost.
"""
