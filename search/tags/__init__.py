"""Tags that people teach by examples: what they say, the probes fitted to it, and what these find.

May import ``errors``, ``library`` and ``index``. Start reading at ``stored.py``;
``probe.py`` is the mathematics, ``scoring.py`` keeps both together.
"""
