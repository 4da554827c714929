"""Names, dates and stamps of files, in the forms in which they are stored and compared.

Imports nothing of ours. Start reading at ``folded.py``: what counts as the same name.
"""
