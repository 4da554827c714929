"""Vectors to neighbours: a checked snapshot in FAISS, and exactly whatever is newer.

May import ``clip`` and ``library``. Start reading at ``vector_index.py``; ``exhaustive.py`` and
``ivf.py`` are the kinds of index.
"""
