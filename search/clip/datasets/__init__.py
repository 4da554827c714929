"""Images with words: folders and tar files, and the captions or labels that go with them.

May import ``clip``. Start reading at ``pairs.py``.
"""
