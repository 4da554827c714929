"""The routes: one blueprint a subject.

May import ``contract`` and ``engine``. Start reading at ``search.py``.
"""
