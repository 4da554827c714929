"""Work on a whole library: change its model, forget a folder.

May import ``errors``, ``clip``, ``library``, ``models``, ``index`` and ``query``. Start reading at
``changeover.py``.
"""
