"""Change a library's model, in the foreground or in the background.

May import the rooms before it. Start reading at ``switch.py``.
"""
