"""Work on a whole library: change its model, forget a folder.

May import ``errors``, ``clip``, ``library``, ``models``, ``index``, ``tags``, ``query``,
``mapping`` and ``fovea.data``. Start reading at ``changeover.py``.
"""
