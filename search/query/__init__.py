"""Text to hits: the query language, ranking, likelihoods, and where the likely matches end.

May import ``clip``, ``library``, ``models`` and ``index``. Start reading at ``run.py``, which
everybody calls; ``language.py`` reads a query, ``filters.py`` turns filters into SQL.
"""
