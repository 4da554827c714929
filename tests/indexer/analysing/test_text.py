"""The engine that reads text in pictures, where it is installed, and what is said where not."""

import json
import os
import subprocess
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

import fovea
from commands import run as command
from commands import settle
from fovea.indexer.analysing import kinds, text
from fovea.indexer.analysing.analyse import analyse
from fovea.indexer.analysing.crew import Crew
from fovea.indexer.analysing.text import ANALYSIS, INSTALL
from fovea.indexer.analysing.worker import NICE
from fovea.indexer.decoding.limits import Limits
from fovea.indexer.workers import host
from fovea.search.analyses.stored import Done, Pending, analysis_counts, store
from fovea.search.analyses.texts import KIND, text_of
from fovea.search.query.filters import allowed_images
from fovea.search.query.language import parse
from places import hostile_files
from small_clips import write_model
from toys import COLOURS

needs_engine = pytest.mark.skipif(
    ANALYSIS.missing() is not None, reason="needs the extra fovea[ocr]: RapidOCR is not installed"
)


def page(path, *lines):
    image = Image.new("RGB", (900, 400), "white")
    draw = ImageDraw.Draw(image)
    for at, line in enumerate(lines):
        draw.text((60, 50 + 110 * at), line, fill="black", font_size=56)
    image.save(path)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    write_model(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (60, 40), "teal").save(tmp_path / "photos" / "plain.png")
    settle(monkeypatch, tmp_path)
    return tmp_path


@needs_engine
def test_lines_are_read_with_their_places(colour_library, add_file, tmp_path):
    path = page(tmp_path / "photos" / "ticket.png", "Boarding pass", "Gate B12")
    image_id = add_file(colour_library, colour_library.roots()[0].id, path)
    [one] = analyse(colour_library, [ANALYSIS], workers=1).kinds
    assert (one.failed, one.pending) == (0, 0)
    first, second = text_of(colour_library, image_id)
    assert (first.text, second.text) == ("Boarding pass", "Gate B12")
    assert first.confidence > 0.8
    left, top, right, *_ = first.corners
    assert left == pytest.approx(60 / 900, abs=0.03) and right < 0.7
    assert top == pytest.approx(60 / 400, abs=0.06) and second.corners[1] > top + 0.2
    filters = parse('text:"boarding pass"').filters
    assert allowed_images(colour_library, filters).tolist() == [image_id]


@needs_engine
def test_the_engine_opens_no_socket_and_writes_nothing(tmp_path):
    path = page(tmp_path / "page.png", "Boarding pass")
    home = tmp_path / "home"
    home.mkdir()
    said = subprocess.run(
        command_of("ear", str(path)),
        cwd=home,
        env={"HOME": str(home), "TMPDIR": str(home), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert said.stdout == "Boarding pass\n", said.stderr
    assert not list(home.iterdir())


def command_of(name, *arguments):
    """Run ``main`` of a module of these tests, as workers run theirs."""
    made = host.command(name, *arguments)
    return [*made, str(Path(__file__).parent)]


@needs_engine
def test_a_picture_is_read_upright_and_from_any_corner_of_a_large_one(tmp_path):
    image = Image.open(page(tmp_path / "page.png", "Boarding pass"))
    large = Image.new("RGB", (9000, 6000), "white")
    large.paste(image.resize((2700, 1200)), (6000, 4500))
    exif = Image.Exif()
    exif[0x0112] = 6
    large.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "large.jpg", exif=exif)
    [found] = read_by_workers([tmp_path / "large.jpg"])
    [(words, _, corners)] = found.result
    assert words == "Boarding pass"
    assert corners[0] == pytest.approx(6180 / 9000, abs=0.01)
    assert corners[1] == pytest.approx(4680 / 6000, abs=0.02)


@needs_engine
def test_hostile_files_end_in_a_text_or_a_reason():
    files = hostile_files(every=25)
    found = read_by_workers(files)
    assert sorted(one.image_id for one in found) == list(range(len(files)))
    for one in found:
        name = files[one.image_id].name
        assert (one.reason is None) != (one.result is None), name
        if one.reason is not None:
            assert one.reason and one.reason.isprintable() and "unexpected" not in one.reason, name
    assert sum(one.reason is None for one in found) > len(files) / 4


def read_by_workers(paths):
    """What became of these files, numbered in their order."""

    def pictures():
        for number, path in enumerate(paths):
            digest = sha256(path.read_bytes()).digest()
            yield Pending(number, digest, (os.fsencode(path),))

    limits = Limits(memory=ANALYSIS.memory, seconds=ANALYSIS.seconds)
    with Crew("fovea.indexer.analysing.text", limits, 1) as crew:
        return [one for one in crew.outcomes(pictures()) if one is not None]


@needs_engine
def test_workers_step_back(tmp_path):
    path = page(tmp_path / "page.png", "Boarding pass")
    picture = Pending(1, sha256(path.read_bytes()).digest(), (os.fsencode(path),))
    limits = Limits(memory=ANALYSIS.memory, seconds=ANALYSIS.seconds)
    with Crew("fovea.indexer.analysing.text", limits, 1) as crew:
        [done] = [one for one in crew.outcomes(iter([picture])) if one is not None]
        threads = [
            os.getpriority(os.PRIO_PROCESS, int(thread.name))
            for pid in crew.process_ids
            for thread in Path(f"/proc/{pid}/task").iterdir()
        ]
    assert done.reason is None
    assert threads and min(threads) >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)


@pytest.mark.parametrize(
    ("words", "sure", "is_kept"), [("S", 0.8, False), ("S", 0.99, True), ("Sea", 0.6, True)]
)
@needs_engine
def test_a_character_or_two_have_to_be_surer(monkeypatch, words, sure, is_kept):
    import rapidocr

    class Engine:
        def __init__(self, params):
            pass

        def __call__(self, image, **parts):
            box = np.array([[[0, 0], [9, 0], [9, 9], [0, 9]]])
            return SimpleNamespace(boxes=box, txts=(words,), scores=(sure,))

    monkeypatch.setattr(rapidocr, "RapidOCR", Engine)
    found = text._engine()(Image.new("RGB", (10, 10)))
    assert [line[0] for line in found] == [words] * is_kept


def test_another_version_of_the_engine_reads_again(colour_library, monkeypatch):
    library, everything = colour_library, len(COLOURS)
    first = ANALYSIS.version
    ids = [image_id for (image_id,) in library.rows("SELECT id FROM images")]
    store(library, KIND, first, [Done(image_id, []) for image_id in ids], ANALYSIS.store)
    assert analysis_counts(library, KIND, ANALYSIS.version).pending == 0
    monkeypatch.setattr(text, "version", lambda package: "99.0")
    assert ANALYSIS.version != first
    assert analysis_counts(library, KIND, ANALYSIS.version).pending == everything


def test_without_the_extra_one_line_says_how_to_get_it(home, monkeypatch):
    monkeypatch.setattr(text, "PACKAGES", ("no_such_package",))
    monkeypatch.setenv(kinds.VARIABLE, "text")
    done = command("index", home / "photos", "--model", home / "model")
    said = [line for line in done.err.splitlines() if "text in pictures" in line]
    assert len(said) == 1
    assert f"not looked for in 1 picture: {INSTALL}; fovea analyse --off text" in said[0]
    assert f"text\t0 pictures done; 1 wait for {INSTALL}, then fovea analyse" in (
        command("status").out
    )
    assert command("index").err == ""  # nothing is new
    command("analyse", "--off", "text")
    assert "text\toff; to switch it on: fovea analyse --on text" in command("status").out
    state = command("status", "--json").json["analyses"]["text"]
    assert state == {"done": 0, "failed": 0, "pending": 0, "off": True, "missing": INSTALL}


def test_the_command_runs_a_stand_in_and_says_what_it_did(home, monkeypatch, tmp_path):
    """An engine that reads the same words in every picture."""
    (tmp_path / "stand_in_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(kinds, "KINDS", {"text": "stand_in_reader"})
    monkeypatch.setenv(kinds.VARIABLE, "text")
    done = command("index", home / "photos", "--model", home / "model")
    assert "text: 1 picture analysed" in done.err
    assert command("analyse", "--json").json["kinds"]["text"] == {
        "done": 0, "failed": 0, "pending": 0, "off": False, "missing": None,
    }  # fmt: skip
    [hit] = command("search", "teapot", "--json").json["hits"]
    assert hit["by_text"] is True and "by_name" not in hit
    assert command("search", "text:teapot").out.count("\n") == 1
    assert "text\t1 pictures done" in command("status").out
    assert json.loads(command("verify", "--json").out)["analyses"]["text"]["done"] == 1
    with fovea.Library.open() as library:
        [line] = library.text(hit["image_id"])
        assert line.text == "a little teapot"
        assert library.analyse().kinds[0].pending == 0


READER = """
from fovea.indexer.analysing.text import TextAnalysis

class Reader(TextAnalysis):
    version = "stand-in"
    memory = 0

    def missing(self):
        return None

    def opened(self):
        corners = [0.1, 0.1, 0.9, 0.1, 0.9, 0.3, 0.1, 0.3]
        return lambda image: [["a little teapot", 0.9, corners]]

ANALYSIS = Reader()
"""
