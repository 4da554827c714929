"""Notice what changes below the roots while it changes: files settle, then they are indexed.

May import ``decoding``, ``walking``, ``scanning`` and ``search.library``. Start reading at
``watch.py``.
"""
