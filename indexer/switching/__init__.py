"""Change a library's model, in the foreground or in the background.

May import ``decoding``, ``workers``, ``walking``, ``scanning`` and ``fovea.search``. Start reading
at ``switch.py``.
"""
