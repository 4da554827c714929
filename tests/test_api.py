"""The Python API: the examples on its page run as written, and it lists every public name."""

import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from PIL import Image

import fovea
from coloured import COLOURS, encoded
from fovea.search.query.likelihood import Background
from fovea.search.query.measured import measured_in
from places import CHECKOUT
from small_clips import write_model

PAGE = CHECKOUT / "docs" / "python-api.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's home folder: pictures, two models, no library. It is the working directory."""
    pictures = tmp_path / "Pictures"
    pictures.mkdir()
    for number, colour in enumerate(COLOURS):
        (pictures / f"{colour}.png").write_bytes(encoded(colour, number))
    Image.new("RGB", (30, 20), "gold").save(tmp_path / "beach.jpg")
    shutil.copyfile(tmp_path / "beach.jpg", tmp_path / "pet.jpg")
    monkeypatch.chdir(tmp_path)
    for name, value in {"HOME": "", "XDG_DATA_HOME": "data", "FOVEA_MODELS": "models"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setenv("FOVEA_OFFLINE", "1")
    monkeypatch.delenv("FOVEA_LIBRARY", raising=False)
    for seed, name in enumerate(("ViT-B-32", "ViT-L-14")):
        write_model(tmp_path / "models" / name, seed=seed)
    return tmp_path


@pytest.fixture
def library(home):
    with fovea.Library.open(home / "library", create=True, device="cpu") as opened:
        opened.index("~/Pictures", model="ViT-B/32", workers=1)
        yield opened


def test_the_examples_on_the_page_run_as_written(home, capsys):
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    assert len(blocks) > 8
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    said = capsys.readouterr()
    assert said.out.startswith(f"{len(COLOURS)} 0\n") and said.err == ""


def test_every_public_name_is_documented():
    text = PAGE.read_text("utf-8")
    assert fovea.__all__ == sorted(fovea.__all__) == sorted(set(fovea.__all__))
    for name in fovea.__all__:
        assert getattr(fovea, name) is not None
        assert re.search(rf"\b{re.escape(name)}\b", text), f"{name} is not in {PAGE.name}"
    for name in dir(fovea.Library):
        if not name.startswith("_"):
            assert re.search(rf"\b[Ll]ibrary\.{name}\b|`{name}[`(]", text), f"Library.{name}"
    public = [getattr(fovea, name) for name in fovea.__all__]
    values = text.partition("## Values")[2].partition("\n## ")[0]
    paragraphs = dict(re.findall(r"^`(\w+)`: (.+?)$(?=\n\n|\Z)", values, re.M | re.S))
    kinds = [kind for kind in public if isinstance(kind, type) and is_dataclass(kind)]
    assert paragraphs.keys() == {kind.__name__ for kind in kinds}
    for kind in kinds:
        for field in fields(kind):
            assert f"`{field.name}`" in paragraphs[kind.__name__], f"{kind.__name__}.{field.name}"
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fovea.no_such_name


def test_every_error_that_a_caller_can_meet_is_exported():
    code = (
        "import fovea, fovea.cli, fovea.web.app, fovea.indexer.switching.switch\n"
        "def tree(kind):\n"
        "    return {kind}.union(*map(tree, kind.__subclasses__()))\n"
        "hidden = {kind.__name__ for kind in tree(fovea.FoveaError)} - set(fovea.__all__)\n"
        "assert not hidden, hidden"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_importing_fovea_loads_no_heavy_package():
    code = (
        "import sys, fovea; dir(fovea)\n"
        "heavy = {'torch', 'faiss', 'flask', 'numpy', 'PIL', 'sqlite_utils'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "fovea.Library\n"
        "assert 'torch' not in sys.modules and 'faiss' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_indexing_prepares_a_library_for_searching(library):
    for pattern in ("index-*.snapshot", "background-*.npz"):
        assert list(library.folder.glob(pattern)), pattern
    assert library.search("the dog").likely is not None, "the background is saved"
    assert library.roots == [library.folder.parent / "Pictures"]
    assert library.counts().images == len(COLOURS) and library.verify().ok


def test_files_are_read_anew_on_demand(library):
    report = library.index(reread=True)
    assert (report.unchanged, report.embedded) == (len(COLOURS), 0)
    report = library.index(next(library.roots[0].iterdir()), reread=True, dry_run=True)
    assert report.unchanged == len(COLOURS)


def test_progress_is_a_callback_and_nothing_prints(library, home, capfd):
    Image.new("RGB", (9, 9), "teal").save(home / "Pictures" / "teal.png")
    seen = []
    assert library.index(progress=seen.append, workers=1).embedded == 1
    assert seen[-1].embedded == 1
    assert capfd.readouterr() == ("", "")


def test_an_index_run_can_be_stopped(library, home):
    stop = threading.Event()
    stop.set()
    Image.new("RGB", (9, 9), "teal").save(home / "Pictures" / "teal.png")
    assert library.index(stop=stop, workers=1).stopped


def test_a_picture_may_be_a_file_or_in_memory(library, home):
    by_file = library.search(image="beach.jpg", k=3)
    with Image.open("beach.jpg") as image:
        in_memory = library.search(image=image, k=3)
        similar = library.similar(image, k=3)
    ids = [hit.image_id for hit in by_file.hits]
    assert ids == [hit.image_id for hit in in_memory.hits] == [h.image_id for h in similar.hits]
    scores = [[hit.score for hit in answer.hits] for answer in (by_file, in_memory)]
    np.testing.assert_allclose(*scores, atol=2e-3)


def test_a_picture_of_the_library_is_recognised_in_any_folder(library, home):
    copy = shutil.copyfile(home / "Pictures" / "red.png", home / "elsewhere.png")
    known = library.find(copy)
    assert library.paths(known) == (str(home / "Pictures" / "red.png"),)
    assert known not in {hit.image_id for hit in library.similar(copy, k=50).hits}
    assert library.find("beach.jpg") is None and library.paths(10**6) == ()


def test_an_empty_library_gives_empty_answers(home):
    with fovea.Library.open("empty", create=True) as library:
        assert library.model is None
        for answer in (
            library.search("a dog"),
            library.search(image="pet.jpg"),
            library.similar(1),
        ):
            assert (answer.hits, answer.total, answer.likely) == ((), 0, None)
        with pytest.raises(fovea.LibraryError):
            library.search(image="absent.jpg")
        with pytest.raises(fovea.LibraryError):
            library.similar("absent.jpg")
        with pytest.raises(fovea.QueryError):
            library.search("size:large")


def test_mistakes_raise_one_line_fovea_errors(library, home):
    for mistake in (
        lambda: fovea.Library.open("nowhere"),
        lambda: library.index("no-such-folder"),
        lambda: library.index("~/Pictures", model="ViT-L/14"),
        lambda: library.search("-red red"),
        lambda: library.search(image="absent.jpg"),
        lambda: library.similar("absent.jpg"),
        lambda: library.similar(10**6),
        lambda: library.use_model("no-such-model"),
        lambda: library.forget("~/elsewhere"),
        lambda: fovea.load_model("no-such-model"),
        lambda: fovea.load_model("ViT-B/32", device="abacus"),
    ):
        with pytest.raises(fovea.FoveaError) as caught:
            mistake()
        assert "\n" not in str(caught.value)


def test_a_library_switches_to_another_model_and_back(library):
    before = library.search("the dog", k=4)
    assert library.use_model("ViT-L/14", workers=1).switched
    assert library.model == "ViT-L/14" == library.search("the dog").model
    back = library.use_model("ViT-B/32")
    assert (back.switched, back.embedded) == (True, 0)
    assert [h.image_id for h in library.search("the dog", k=4).hits] == [
        hit.image_id for hit in before.hits
    ]


def test_likelihoods_appear_once_a_background_is_saved(library, home):
    for file in library.folder.glob("background-*"):
        file.unlink()
    answer = library.search("the dog")
    assert answer.likely is None and answer.hits[0].likelihood is None
    model = fovea.load_model("ViT-B/32", device="cpu")
    signs = measured_in(home / "models" / "ViT-B-32", model.identity, model.dim)
    Background.of(model.identity, model, signs).save(library.folder)
    answer = library.search("the dog")
    assert answer.likely is not None and answer.hits[0].likelihood is not None


def test_a_folder_that_is_not_covered_cannot_be_forgotten(library, home):
    with pytest.raises(fovea.LibraryError, match=f"it covers {home}/Pictures$"):
        library.forget("~/elsewhere")


def test_what_an_interrupted_run_left_undone_is_prepared_by_the_next(library):
    for path in library.folder.glob("background-*.npz"):
        path.unlink()
    assert library.index().embedded == 0
    with fovea.Library.open(library.folder) as again:
        assert again.search("the dog").likely is not None


def test_a_library_without_its_model_can_be_browsed(library, home):
    known = library.find(home / "Pictures" / "red.png")
    shutil.move(home / "models", home / "elsewhere")
    with fovea.Library.open(library.folder) as again:
        assert len(again.search("name:red").hits) == 1
        assert len(again.search(f"like:{known}").hits) == len(COLOURS)
        assert len(again.similar(known, k=50).hits) == len(COLOURS) - 1
        with pytest.raises(fovea.ModelError):
            again.search("the dog")


def test_what_is_refused_downloads_nothing(library, home, monkeypatch):
    monkeypatch.setattr("fovea.search.models.download.download", None)
    shutil.rmtree(home / "models" / "ViT-L-14")
    monkeypatch.delenv("FOVEA_OFFLINE")
    with pytest.raises(fovea.ModelChanged, match="uses ViT-B/32, not ViT-L/14"):
        library.index(model="ViT-L/14")
    with pytest.raises(fovea.FoveaError, match="no folder"):
        library.index("nowhere")
    assert library.index(dry_run=True).unchanged == len(COLOURS)


def test_models_are_named_by_path_too(library, home):
    write_model(home / "mine", seed=5)
    assert library.use_model(home / "mine", workers=1).switched
    assert library.index(model=home / "mine").unchanged == len(COLOURS)


def test_callers_mistakes_are_pythons_own_errors(library):
    with pytest.raises(TypeError, match="ignore is a list"):
        library.index(ignore="*.png")
    with pytest.raises(TypeError, match="not bytes"):
        library.search(image=b"\xff\xd8")
    with pytest.raises(ValueError):
        library.search("the dog", k=-1)


def test_ctrl_c_ends_an_index_run(library, home):
    Image.new("RGB", (9, 9), "teal").save(home / "Pictures" / "teal.png")

    def interrupt(progress):
        signal.raise_signal(signal.SIGINT)  # to this thread: others would tell it late

    with pytest.raises(KeyboardInterrupt):
        library.index(progress=interrupt, workers=1)


def test_a_folder_is_forgotten(library, home):
    assert library.forget("~/Pictures") == len(COLOURS)
    assert library.roots == [] and library.search("").hits == ()
    assert len(list((home / "Pictures").iterdir())) == len(COLOURS)


def test_a_dry_run_downloads_nothing(home, monkeypatch):
    shutil.rmtree(home / "models")
    for name in ("FOVEA_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FOVEA_MODELS_URL", "http://127.0.0.1:9")  # where nobody answers
    asked = []

    def on_download(name):
        asked.append(name)
        return lambda done, total: None

    with fovea.Library.open(home / "library", create=True, on_download=on_download) as library:
        report = library.index("~/Pictures", dry_run=True)
    assert (report.embedded, asked) == (len(COLOURS), [])
