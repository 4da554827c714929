"""A map of the library: its pictures in two dimensions, near where they are alike, and clusters.

May import ``errors``, ``clip``, ``library``, ``models``, ``index`` and ``query``. Start reading at
``build.py``.
"""
