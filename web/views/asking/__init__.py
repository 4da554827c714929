"""Views that help people to ask, before there is a question to answer.

May import whatever ``views`` may. Start reading at ``suggest.py``.
"""
