"""Indexing and changing the model while the server runs, in processes of their own.

May import ``contract``, ``engine``, ``fovea.indexer`` and ``fovea.search``. Start reading at
``scans.py``.
"""
