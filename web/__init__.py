"""The web app: pages, a JSON API and thumbnails, over HTTP and nothing else.

Rooms: ``contract`` (what routes take and answer), ``engine`` (what requests share), ``views`` (the
routes), ``jobs`` (indexing while the server runs), ``serving`` (connections and who may ask). May
import ``fovea.indexer`` and ``fovea.search``.

Start reading at ``app.py``, then ``views/search.py``.
"""
