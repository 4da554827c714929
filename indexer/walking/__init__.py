"""What lies under a folder: listing, ignore patterns, reading ahead.

May import ``decoding``. Start reading at ``walk.py``.
"""
