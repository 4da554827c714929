"""Videos to moments, through the optional extra ``video`` (PyAV, which wraps FFmpeg).

May import ``decoding`` and ``fovea.search``. Start reading at ``decode.py``; ``container.py`` says
what FFmpeg may open, ``scenes.py`` which frames are moments.
"""
