"""Connections: who may ask, how much, how slowly.

May import ``contract``. Start reading at ``server.py``.
"""
