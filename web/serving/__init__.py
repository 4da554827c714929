"""The HTTP server: access, and limits on the size, number and slowness of requests.

May import ``contract`` and ``fovea.search``. Start reading at ``server.py``.
"""
