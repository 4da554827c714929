"""Pictures that are one picture: resized, stored anew, cropped a little; and bursts.

Start reading at ``groups.py``; ``candidates.py`` proposes pairs, ``registering.py`` compares them
and ``deciding.py`` decides. ``signature.py`` is used while pictures are decoded. May import
``library`` and ``index``.
"""
