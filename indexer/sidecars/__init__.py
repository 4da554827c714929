"""Tags and favourites as XMP sidecars, written for other programs and read from them.

May import ``fovea.search`` and ``decoding``. Start reading at
``exchange.py``; ``packet.py`` is what one file holds.
"""
