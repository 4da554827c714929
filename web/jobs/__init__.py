"""Indexing while the server runs, in a process of its own.

May import ``contract``, ``engine``, ``fovea.indexer`` and ``fovea.search``. Start reading at
``scans.py``.
"""
