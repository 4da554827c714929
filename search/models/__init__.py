"""Which model to use, and how it gets onto this disk.

May import ``errors``, ``clip``, ``library`` and ``fovea.data``. Start reading at ``resolve.py``;
``openai.py``, ``hub.py`` and ``url.py`` are where models come from, ``download.py`` fetches them;
``better.py`` says which one would be better.
"""
