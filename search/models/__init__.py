"""Which model to use, and how it comes to this disk.

May import ``clip`` and ``library``. Start reading at ``resolve.py``; ``openai.py``, ``hub.py`` and
``url.py`` are the places that models come from, ``download.py`` is how.
"""
