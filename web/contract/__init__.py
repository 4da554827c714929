"""What routes take and answer: declared once, read by views, published as OpenAPI.

May import ``fovea.search``. Start reading at ``describe.py``.
"""
