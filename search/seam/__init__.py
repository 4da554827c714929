"""What a library must do, whatever engine keeps it: SQLite with FAISS, or Milvus.

May import ``clip`` and ``library``. Start reading at ``asking.py``, what queries ask;
``writing.py`` has what is written and copied, ``proof.py`` which files may be shown.
"""
