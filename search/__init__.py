"""The engine: models, the library, its index, and queries that become hits.

Rooms, each importing only those before it: ``clip`` (CLIP itself), ``library`` (rows and folders),
``models`` (which model, and how it comes here), ``index`` (vectors to neighbours), ``query`` (text
to hits), ``maintenance`` (changing the model, forgetting a folder). ``errors`` holds the
exceptions. May import ``fovea.data``. Nothing here prints or asks.

Start reading at ``query/run.py``: one query's way out.
"""
