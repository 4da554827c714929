"""A program for tests: read a picture's text, and refuse every socket and every file to write."""

import os
import sys

__all__ = ["main"]

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def main(path: str) -> None:
    sys.addaudithook(_refuse)
    from PIL import Image

    from fovea.indexer.analysing.text import ANALYSIS

    lines = ANALYSIS.opened()(Image.open(path).convert("RGB"))
    print("\n".join(text for text, _, _ in lines))


def _refuse(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.mkdir", "os.rename", "os.remove")):
        raise AssertionError(f"{event} {arguments}")
    if event == "open" and (arguments[2] or 0) & WRITING:
        raise AssertionError(f"it writes {arguments[0]}")
