"""From coordinates to places by name, offline.

May import ``fovea.search``. Start reading at ``place.py``, which looks up what a library lacks;
``nearest.py`` has the geometry, ``gazetteer.py`` the data of the extra ``fovea[places]``.
"""
