"""``python -m fovea``: the command line."""

from .cli import main

main()
