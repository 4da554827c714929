"""Index a folder, and press Ctrl-C once or twice at a batch: a program of its own.

A signal is for a whole process, which may not be that of other tests. Arguments: the library's
folder, the folder to index, the number of pictures before the batch, and how often. Print as JSON
what came of it.
"""

import json
import signal
import sys
import threading

from fovea.indexer.scanning.verify import verify
from fovea.search.library.library import Library
from scanner import Scanner
from toys import ColourEncoder


class Interrupted(ColourEncoder):
    """Presses Ctrl-C once so many pictures are embedded."""

    def __init__(self, after: int, times: int) -> None:
        super().__init__()
        self.after, self.times = after, times

    def encode_pixels(self, pixels):
        if self.encoded >= self.after:
            while self.times:
                self.times -= 1
                signal.raise_signal(signal.SIGINT)  # to this thread: two do not become one
        return super().encode_pixels(pixels)


def main(folder: str, root: str, after: str, times: str) -> None:
    # Python's own answer: a shell has it ignored by what it starts in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Library.open(folder) as library:
        scan, report = Scanner(library), None
        scan.encoder = Interrupted(int(after), int(times))
        try:
            report = scan(root, batch_size=4)
        except KeyboardInterrupt:
            pass
        said = {
            "stopped": report and report.stopped,
            "embedded": report and report.embedded,
            "images": library.counts().images,
            "is_as_before": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
            "is_sound": verify(library).ok,
            "threads": [thread.name for thread in threading.enumerate()],
        }
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
