"""What pictures hold beyond their embedding, found after they are embedded, at low priority.

May import ``decoding``, ``workers``, ``placing``, ``scanning`` and ``fovea.search``. Start reading
at ``analyse.py``; ``kinds.py`` lists the analyses and says what one is, ``crew.py`` has the
processes, ``worker.py`` is what runs in them, and ``accounts.py`` tells how much is known.
"""
