"""State shared by all requests: the library, its index and encoder, and listings to page through.

May import ``contract``, ``fovea.indexer`` and ``fovea.search``. Start reading at ``engine.py``.
"""
