"""What a library keeps of its pictures' analyses: which were done, which failed, which are off.

May import ``library`` and what comes before it. Start reading at ``stored.py``; ``texts.py`` has
what one of them finds. The analyses themselves are in ``fovea.indexer.analysing``.
"""
