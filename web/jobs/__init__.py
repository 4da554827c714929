"""What runs beside the server: indexing, changing the model, and programs of the desktop.

May import ``contract``, ``engine``, ``fovea.indexer`` and ``fovea.search``. Start reading at
``scans.py``.
"""
