"""What people may mean by what they type: suggestions, dates in words, and languages.

May import ``errors``, ``clip``, ``library``, ``models``, ``analyses`` and ``query``. Start reading
at ``suggest.py``; ``known.py`` is what a library knows, ``dates_in_words.py`` reads "last summer"
and 去年, ``caret.py`` finds what is being typed, ``languages.py`` recognises what a model cannot
read.
"""
