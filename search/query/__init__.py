"""From a query to hits: the query language, ranking, likelihoods, and the line between hits.

May import ``errors``, ``clip``, ``library``, ``places``, ``analyses``, ``index``, ``seam`` and
``tags``. Start reading at ``run.py``, which all callers use; ``language.py`` parses a query,
``filters.py`` turns filters into SQL.
"""
