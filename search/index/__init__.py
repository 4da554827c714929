"""Vectors to neighbours: a checked snapshot, and an exact search of whatever is newer.

May import ``errors``, ``clip`` and ``library``. Start reading at ``vector_index.py``;
``exhaustive.py`` and ``ivf.py`` search vectors, ``kinds.py`` lists the kinds of index that can be
built.
"""
