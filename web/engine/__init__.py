"""What requests share: the library, its index and encoder, and answers read page by page.

May import ``contract``, ``fovea.indexer`` and ``fovea.search``. Start reading at ``engine.py``.
"""
