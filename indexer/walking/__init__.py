"""What lies under a folder: listing, ignore patterns, reading ahead.

May import ``decoding`` and ``fovea.search``. Start reading at ``walk.py``.
"""
