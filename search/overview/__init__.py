"""What a library has in all.

May import ``library`` and ``query``. Start reading at ``timeline.py``.
"""
