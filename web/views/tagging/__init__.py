"""Views of tags: what people teach, and what fovea proposes.

May import whatever ``views`` may. Start reading at ``tags.py``.
"""
