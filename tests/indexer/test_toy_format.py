"""A row in the table of formats is all that a new format needs."""

import subprocess
import sys

from places import CHECKOUT, HELPERS

# A picture of one colour: its name, then three bytes.
PLUGIN = """
from PIL import Image, ImageFile

class ToyImageFile(ImageFile.ImageFile):
    format = "TOY"

    def _open(self):
        self.fp.seek(3)
        colour = self.fp.read(3)
        self._mode, self._size, self.tile = "RGB", (40, 30), []
        self.im = Image.new("RGB", self.size, tuple(colour)).im

Image.register_open("TOY", ToyImageFile, lambda beginning: beginning.startswith(b"toy"))
"""

ROW = """
from fovea.search.clip import formats
formats.FORMATS += (formats.Format("TOY", "toy ty", "TOY", "toyplugin"),)
"""

PROGRAM = """
import sys
import toyrow
from pathlib import Path
from types import SimpleNamespace

from fovea.indexer.scanning.scan import index_folders
from fovea.indexer.workers import host
from fovea.search.clip.preprocess import Preprocess
from fovea.search.library.library import Library
from fovea.search.query.filters import allowed_images
from fovea.search.query.language import parse
from toys import ColourEncoder
from worker_programs import running_first

host.command = running_first("import toyrow")
model = SimpleNamespace(
    name="colour", identity="c0" * 32, dim=3, preprocess=Preprocess(8), source="test",
    folder=Path("no"),
)
here = Path(sys.argv[1])
with Library.open(here / "library", create=True) as library:
    report = index_folders(library, [here / "photos"], model=model, load_encoder=ColourEncoder)
    assert (report.found, report.embedded) == (2, 2), report
    assert library.rows("SELECT width, height FROM images WHERE format = 'TOY'") == [(40, 30)] * 2
    for query, count in (("format:toy", 2), ("format:TY", 2), ("format:jpg", 0)):
        assert len(allowed_images(library, parse(query).filters)) == count, query
"""


def test_a_format_is_added_by_a_row_and_a_plugin(tmp_path):
    (tmp_path / "toyplugin.py").write_text(PLUGIN)
    (tmp_path / "toyrow.py").write_text(ROW)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "red.toy").write_bytes(b"toy\xff\0\0")
    (tmp_path / "photos" / "blue.ty").write_bytes(b"toy\0\0\xff")
    paths = [str(tmp_path), str(CHECKOUT), str(HELPERS)]
    program = f"import sys; sys.path[:0] = {paths!r}\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
