"""A library as training data: its pictures, and the words that go with them.

May import the rooms before it. Start reading at ``training_set.py``.
"""
