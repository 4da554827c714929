"""Other programs, set up to do the same work in the same run; ``bench/index.py`` calls them."""
