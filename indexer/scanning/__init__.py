"""Compare the disk with the library: what is new, changed, moved or gone.

May import ``decoding``, ``workers`` and ``walking``. Start reading at ``scan.py``; ``changes.py``
and ``missing.py`` decide, ``pipeline.py`` embeds and writes.
"""
