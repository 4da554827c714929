"""A library in SQLite as those see it who fill it or copy it, whatever engine the other one has.

May import ``errors``, ``library``, ``places`` and ``seam``. Start reading at ``store.py``.
"""
