"""Compare the disk with the library: what is new, changed, moved or gone.

May import ``decoding``, ``workers``, ``walking``, ``placing`` and ``fovea.search``. Start reading
at ``scan.py``; ``changes.py`` and ``missing.py`` decide, ``pipeline.py`` embeds and writes.
"""
