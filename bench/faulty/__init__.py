"""The faults of ``bench/faults.py``: each module makes one kind, and counts what went wrong.

``ground.py`` has the pictures, the toy model and the processes that all of them use.
"""
