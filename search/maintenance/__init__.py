"""Work on a whole library: change its model, forget a folder.

May import ``errors``, ``clip``, ``library``, ``models``, ``index``, ``query`` and ``fovea.data``.
Start reading at ``changeover.py``.
"""
