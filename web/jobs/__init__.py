"""Indexing while the server runs, in a process of its own.

May import ``contract`` and ``engine``. Start reading at ``scans.py``.
"""
