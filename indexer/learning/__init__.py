"""A library as training data: its pictures, and the words that go with them.

May import ``decoding``, ``workers`` and ``fovea.search``. Start reading at ``training_set.py``.
"""
