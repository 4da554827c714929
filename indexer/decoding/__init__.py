"""Bytes to pixels, under limits of bytes, pixels, scans and memory. Never imports torch.

May import ``fovea.search``. Start reading at ``pillow.py``; ``formats.py`` says which files are
pictures, ``limits.py`` what one may cost.
"""
