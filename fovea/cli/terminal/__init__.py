"""What the command line adds for people at a terminal: tables, previews, browsing, completion.

Nothing here is imported before it is needed, as far as it needs more than click. Start reading at
``results.py``: what becomes of an answer. ``browser.py`` is the full-screen search.
"""
