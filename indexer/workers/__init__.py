"""Processes that decode, which a hostile file may break, and the pools that replace them.

May import ``decoding`` and ``fovea.search``. Start reading at ``host.py``, then ``pool.py``
(indexing) and ``decode_pool.py`` (pictures that a server shows).
"""
