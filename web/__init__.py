"""The web app: pages, a JSON API and thumbnails, over HTTP and nothing else.

Rooms: ``contract`` (requests and answers of the API), ``engine`` (state that requests share),
``views`` (the routes), ``jobs`` (indexing while the server runs), ``serving`` (connections, limits
and access). May import ``fovea.indexer`` and ``fovea.search``.

Start reading at ``app.py``, then ``views/search.py``.
"""
