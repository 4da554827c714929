"""Inference: embed images and texts as unit rows, float32 (n, d).

May import ``clip``, ``checkpoints`` and ``engines``. Start reading at ``base.py`` (what all
encoders share), then ``clip.py`` (CLIP on ``towers.py``), ``numpy_text.py`` (texts without torch,
on ``numpy_towers.py``) and ``transformers_models.py`` (other families); ``load.py`` chooses among
them, and has ``engines`` choose how pictures are embedded on a CPU.

Add a tower: a configuration in ``clip.config``, a module beside ``clip.model``, its tensors in
``checkpoints.shapes``, and an inference tower here, which ``towers.py`` chooses.

Add a model family that ``transformers`` has:

1. Add a row to ``FAMILIES`` in ``checkpoints.families``: the ``model_type`` of its config.json,
   its class, and the tensor that has a row for each value of an embedding.
2. If its preprocessing is of a new kind, add the kind's defaults to ``image_processor`` there.
3. Only if its towers take other inputs than pixels and token ids, extend ``TransformersEncoder``.
4. Add a small random model to ``tests/foreign_clips``; the tests of all families then compare
   its embeddings with those of ``transformers`` itself.
"""
