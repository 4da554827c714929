"""Find photographs by what is in them: words and pictures, on one machine, offline."""
