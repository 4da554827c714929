"""Inference: pictures and texts become unit vectors, float32 (n, d).

May import ``clip`` and ``checkpoints``. Start reading at ``base.py`` (what all encoders share),
then ``clip.py`` (CLIP on ``towers.py``), ``numpy_text.py`` (texts without torch) and
``transformers_models.py`` (other families).
"""
