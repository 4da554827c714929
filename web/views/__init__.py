"""The routes: one blueprint per subject.

May import ``contract`` and ``engine``. Start reading at ``search.py``.
"""
