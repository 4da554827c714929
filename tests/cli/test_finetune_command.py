"""The commands around a model's training, as a user types them."""

import json
import shutil

import pytest

from coloured import captioned_source, encoded, tiny_run
from commands import run
from fovea.indexer.scanning.scan import index_folders
from fovea.search.clip.training.train import train
from fovea.search.library.library import Library
from fovea.search.models.resolve import resolve_model

OPTIONS = ("--epochs", 4, "--tune", 1, "--lr", 2e-3, "--batch-size", 16, "--workers", 1)
OPTIONS += ("--device", "cpu", "--dtype", "float32")
WORDS = ("red", "blue", "lime", "black")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model, and a library of 80 pictures in folders that say what they show."""
    folder = tmp_path_factory.mktemp("home")
    start = train(tiny_run(folder, out=folder / "start", samples=16))
    for number in range(80):
        place = folder / "photos" / f"{WORDS[number % 4]} boat"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"IMG_{number}.png").write_bytes(encoded(WORDS[number % 4], number))
    model = resolve_model(str(start))
    with Library.open(folder / "library", create=True) as library:
        index_folders(
            library,
            [folder / "photos"],
            model=model,
            load_encoder=lambda: model.load(device="cpu", dtype="float32"),
            workers=1,
        )
    return folder


@pytest.fixture
def library(home, tmp_path):
    return shutil.copytree(home / "library", tmp_path / "library")


def numbered(folder):
    """Write captions from which nothing is to be learned."""
    lines = "\n".join(f"IMG_{n}.png\tpicture {n}" for n in range(80))
    (folder / "c.tsv").write_text(f"file\tcaption\n{lines}")
    return folder / "c.tsv"


def test_captions_are_listed_before_anything_is_trained(library, home):
    done = run("finetune", "--from", library, "--list", "--words", "names")
    assert done.code == 0, done.err
    assert f"{home / 'photos' / 'red boat' / 'IMG_0.png'}\tred boat" in done.out.splitlines()
    lines = run("finetune", "--from", library, "--list", "--words", "names", "--json").out
    rows = [json.loads(line) for line in lines.splitlines()]
    assert len(rows) == 80 and rows[0].keys() == {"file", "captions"}
    assert not (library / "tuned").exists()


def test_a_library_is_learned_from(library):
    done = run("finetune", "--from", library, "--least-agreement", 0, *OPTIONS)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert rows[0] == ["pictures", "80 with 4 captions"] and rows[2] == ["", "before", "after"]
    assert [row[0] for row in rows[3:9]] == [
        f"{way} recall@{k}" for way in ("text to image", "image to text") for k in (1, 5, 10)
    ]
    again = run("finetune", "--from", library, "--least-agreement", 0, *OPTIONS, "--json")
    found = json.loads(again.out)
    assert again.code == done.code == 0 and found["refusal"] is None, found
    assert f"fovea models use {found['model']} --library {library}" in done.err
    assert f"{found['after']['text_to_image']['10']:.4f}" == rows[5][2]


def test_a_model_that_got_worse_is_refused_with_its_figures(library, tmp_path):
    done = run(
        "finetune", "--from", library, "--captions", numbered(tmp_path), *OPTIONS, "--lr", 5,
        "--out", tmp_path / "out", "--least-agreement", 1,
    )  # fmt: skip
    assert done.code == 1
    assert "the new model was refused: it" in done.err
    assert str(tmp_path / "out" / "refused") in done.err
    assert "agreement" in done.out and "to answer by it" not in done.err


def test_a_tuned_model_is_used_at_once_and_the_former_one_again(library, home):
    done = run("finetune", "--from", library, "--least-agreement", 0, *OPTIONS, "--use", "--json")
    assert done.code == 0, done.err
    tuned = json.loads(done.out)["model"]

    def in_use():
        return json.loads(run("models", "info", "--library", library, "--json").out)["folder"]

    assert in_use() == tuned and "to go back: fovea models use" in done.err
    hits = json.loads(run("search", "red boat", "--library", library, "--json").out)["hits"]
    assert len(hits) == 10
    back = run("models", "use", home / "start" / "model", "--library", library)
    assert back.code == 0 and "80 pictures, 0 embedded" in back.out
    assert in_use() == str(home / "start" / "model")


def test_a_refused_model_is_not_used(library, home, tmp_path):
    done = run(
        "finetune", "--from", library, "--captions", numbered(tmp_path), *OPTIONS, "--lr", 5,
        "--least-agreement", 1, "--use",
    )  # fmt: skip
    assert done.code == 1 and "the new model was refused" in done.err
    info = json.loads(run("models", "info", "--library", library, "--json").out)
    assert info["folder"] == str(home / "start" / "model")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--captions", "none.tsv"], "cannot read none.tsv"),
        (["--words", "keywords"], "too few pictures with captions: 0 "),
        (["--keep", "nan"], "keep is nan"),
    ],
)
def test_what_cannot_be_learned_is_told(library, words, told):
    done = run("finetune", "--from", library, *OPTIONS, *words)
    assert done.code == 1 and told in done.err


def test_a_run_is_drawn(tmp_path):
    options = tiny_run(tmp_path)
    train(options)
    done = run("train", "--out", options.out, "--plot")
    assert done.code == 0 and (options.out / "metrics.png").read_bytes().startswith(b"\x89PNG")
    assert run("train", "--out", tmp_path / "none", "--plot").code == 1


def test_two_models_are_compared_on_one_page(home, tmp_path):
    source = captioned_source(tmp_path)
    other = train(tiny_run(tmp_path, out=tmp_path / "other", samples=80, sources=(source,)))
    data = ["--captions", source.captions, "--images", source.images[0]]
    models = ["--model", home / "start" / "model", "--against", other]
    report = ["--report", tmp_path / "page.html", "--examples", 3]
    done = run("evaluate", *data, *models, *report)
    assert done.code == 0, done.err
    assert [len(line.split("\t")) for line in done.out.splitlines()] == [3] * 8
    text = (tmp_path / "page.html").read_text()
    assert "model (1) vs. model (2)" in text and text.count("<section>") == 3
    found = run("evaluate", *data, *models, "--json").json
    assert found["against"].keys() == found.keys() - {"against"}
    assert run("evaluate", *data, "--model", other, *report).code == 0
    assert "against" not in (tmp_path / "page.html").read_text()
