"""The library: which folders, files, images and embeddings there are. SQLite is the only truth.

May import ``clip`` and ``errors``. Start reading at ``schema.py`` (the tables), then
``library.py``.
"""
