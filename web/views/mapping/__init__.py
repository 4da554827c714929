"""The map of the library: where its pictures lie, and what is laid out for it.

Start reading at ``maps.py``.
"""
