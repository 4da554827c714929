"""Measure a model: retrieval by captions, zero-shot classification by labels.

May import ``clip`` and ``datasets``. Start reading at ``evaluate.py``.
"""
