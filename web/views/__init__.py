"""The routes: one blueprint per subject.

May import ``contract``, ``engine``, ``jobs``, ``fovea.indexer`` and ``fovea.search``. Start reading
at ``search.py``.
"""
