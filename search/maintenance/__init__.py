"""Work on a whole library: change its model, forget a folder.

May import every other room of ``search``. Start reading at ``changeover.py``.
"""
