"""Requests and answers of the API: declared once, read by views, published as OpenAPI.

May import ``fovea.search``. Start reading at ``describe.py``.
"""
