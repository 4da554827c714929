"""Embed pictures by the million: from folders, shards and lists, into files or a library.

May import ``decoding``, ``walking``, ``workers``, ``placing``, ``scanning`` and ``fovea.search``.
Start reading at ``embed.py``; ``items.py`` has what passes between the parts, ``here.py`` embeds on
this machine and ``on_ray.py`` on a cluster.
"""
