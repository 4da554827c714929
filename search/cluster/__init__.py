"""A library on Milvus: pictures as entities there, and what this machine needs of them in a folder.

May import ``errors``, ``clip``, ``library``, ``places``, ``index``, ``seam``, ``query``,
``overview`` and ``embedded``. The package ``pymilvus`` is imported when such a library is opened,
never before. Start reading at ``source.py``, which answers queries; ``expressions.py`` turns
filters into Milvus's expressions, ``store.py`` writes, ``desk.py`` keeps rows here.
"""
