"""Train a CLIP from scratch, from weights or from pretrained parts.

May import ``clip``, ``checkpoints``, ``encoders``, ``datasets``, ``evaluation`` and ``parts``.
Reading order:

1. ``recipe.py``: the options of a run, from the command line or a TOML file.
2. ``train.py``: the run from data to model, its loop, the learning rate, the metrics.
3. ``batches.py`` draws and decodes the batches; ``augment.py`` varies images and captions.
4. ``learner.py``: one update, its gradients and optimizers; ``losses.py`` the objective,
   ``muon.py`` an optimizer, ``partial.py`` what is trained and at which input size.
5. ``split.py`` divides a model into locked and trained layers, ``kept.py`` keeps the features of
   the locked ones, ``guide.py`` learns from the classifier of an image part.
6. ``distributed.py``: several processes that act as one.
7. ``run_folder.py`` keeps checkpoint and metrics, ``held_out.py`` measures during training,
   ``plot.py`` draws the curves.
"""
