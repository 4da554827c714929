"""The way in: walk folders, notice changes, decode, embed, write.

Rooms, each importing only those before it: ``decoding`` (bytes to pixels, under limits),
``workers`` (the processes that do it), ``walking`` (what lies under a folder), ``scanning``
(compare the disk with the library), ``watching`` (notice changes as they happen), ``analysing``
(what pictures hold beyond their embedding), ``switching`` (change the model), ``learning`` (a
library as training data). May import ``fovea.search``; prints nothing.

Start reading at ``scanning/scan.py``: one photograph's way in.
"""
