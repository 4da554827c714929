"""Train a CLIP from scratch or from weights.

May import ``clip``, ``checkpoints``, ``encoders``, ``datasets`` and ``evaluation``. Reading order:

1. ``recipe.py``: the options of a run, from the command line or a TOML file.
2. ``train.py``: the run from data to model, its loop, the learning rate, the metrics.
3. ``batches.py`` draws and decodes the batches; ``augment.py`` varies images and captions.
4. ``learner.py``: one update, its gradients and optimizers; ``losses.py`` the objective,
   ``muon.py`` an optimizer, ``partial.py`` what is trained and at which input size.
5. ``distributed.py``: several processes that act as one.
6. ``run_folder.py`` keeps checkpoint and metrics, ``held_out.py`` measures during training,
   ``plot.py`` draws the curves.
"""
