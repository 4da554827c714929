"""Read weights in any dialect: original archives, ``transformers`` folders, open_clip files.

May import the modules of ``clip``. Start reading at ``checkpoint.py``: it finds, checks and reads
them; ``dialects.py`` translates the names, ``shapes.py`` lists the tensors, ``int8.py`` widens
matrices stored as int8.
"""
