"""What pictures hold beyond their embedding, found after they are embedded, at low priority.

May import ``decoding``, ``workers``, ``scanning`` and ``fovea.search``. Start reading at
``analyse.py``; ``kinds.py`` lists the analyses and says what one is, ``crew.py`` has the processes,
and ``worker.py`` is what runs in them.
"""
