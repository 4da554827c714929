"""Damaged pictures: what is certain of them, and what is missing.

May import ``fovea.search``. Start reading at ``lenient.py``; ``jpeg.py`` and ``frames.py`` know
their formats, ``damage.py`` has the words.
"""
