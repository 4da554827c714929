"""What a library must do, whatever engine keeps it: SQLite with FAISS, or Milvus.

May import ``library``. Start reading at ``asking.py``, what queries ask; ``writing.py`` has what is
written and copied.
"""
