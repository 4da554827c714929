"""The places of a library's pictures: towns, cities, regions and countries by name.

May import ``library`` and what comes before it. Start reading at ``stored.py``; the names come from
``fovea.indexer.placing``.
"""
