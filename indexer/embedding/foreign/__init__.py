"""Embeddings that anybody may have written: nothing in them is believed unseen.

May import ``decoding``, ``walking``, ``scanning`` and ``fovea.search``. Start reading at
``parts.py``, which reads files; ``facts.py`` judges what they say of a picture, and ``rules.py``
whether ``fovea index`` would take it.
"""
