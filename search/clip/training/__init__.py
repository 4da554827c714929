"""Train a CLIP, from nothing or from weights.

May import the rooms of ``clip`` but ``finetuning``. Reading order: ``recipe.py`` (what is asked),
``train.py`` (the loop), ``batches.py`` and ``augment.py`` (the data), ``learner.py`` (one update),
``losses.py`` (the objective).
"""
