"""The library: its folders, files, images and embeddings. SQLite is the only truth.

May import ``errors``, ``clip`` and ``fovea.data``. Start reading at ``schema.py`` (the tables),
then ``library.py``.
"""
