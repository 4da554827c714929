import csv
import hashlib
import warnings

import pytest
import torch

from fovea.search.clip.checkpoints.checkpoint import load_clip, read_config
from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.errors import ModelError
from fovea.search.models import openai
from fovea.search.models.download import Patience
from fovea.search.models.openai import (
    OPENAI_MODELS,
    VOCABULARY,
    OpenAIModel,
    Remote,
    find_openai,
    on_disk,
    pull_openai,
)
from fovea.search.models.store import models_folder
from loopback import serving
from places import SHARED
from small_clips import MERGES, VIT, random_clip, write_archive

WEIGHTS_TABLE = SHARED / "design" / "weights.tsv"
PATIENCE = Patience(first=2.0, silence=2.0)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The files of a small release: an archive and a vocabulary, and the model they hold."""
    folder = tmp_path_factory.mktemp("release")
    model = random_clip(VIT).half().float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated, and says more
        write_archive(folder / "tiny.pt", model)
    vocabulary = Tokenizer(MERGES).save(folder)
    return {"/tiny.pt": (folder / "tiny.pt").read_bytes(), "/words.gz": vocabulary.read_bytes()}


@pytest.fixture
def server(release):
    with serving() as served:
        served.files |= release
        yield served


def tiny(server):
    """The small release as it is served: a model and its vocabulary."""
    archive, words = server.files["/tiny.pt"], server.files["/words.gz"]
    model = OpenAIModel("Tiny/8@9px", Remote(f"{server.url}/tiny.pt", sha256(archive)), 1.0)
    name = "bpe_simple_vocab_16e6.txt.gz"
    server.files[f"/{name}"] = words
    return model, Remote(f"{server.url}/{name}", sha256(words))


def test_the_nine_models_are_those_of_the_table():
    if not WEIGHTS_TABLE.is_file():
        pytest.skip("shared/design/weights.tsv is not beside this checkout")
    with WEIGHTS_TABLE.open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file, delimiter="\t")}
    vocabulary = rows.pop("vocabulary")
    assert (VOCABULARY.url, VOCABULARY.sha256) == (vocabulary["url"], vocabulary["sha256"])
    assert {model.folder.name for model in OPENAI_MODELS} == set(rows)
    for model in OPENAI_MODELS:
        row = rows[model.folder.name]
        assert (model.archive.url, model.archive.sha256) == (row["url"], row["sha256"])


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("ViT-B/32", "ViT-B/32"),
        ("vit-b-32", "ViT-B/32"),
        ("ViT-L/14@336px", "ViT-L/14@336px"),
        ("ViT-L-14-336px", "ViT-L/14@336px"),
        ("RN50x4", "RN50x4"),
        ("rn50", "RN50"),
    ],
)
def test_a_model_is_found_however_its_name_is_written(written, name):
    assert find_openai(written).name == name


@pytest.mark.parametrize("written", ["ViT-B", "RN", "", "ViT-B/32/x"])
def test_other_names_are_none_of_them(written):
    assert find_openai(written) is None


def test_an_archive_becomes_a_folder_once(server, place, release, monkeypatch):
    """One test, since turning an archive takes a process that imports torch."""
    model, vocabulary = tiny(server)
    elsewhere = OpenAIModel(
        model.name, Remote("http://a.invalid/tiny.pt", model.archive.sha256), 1.0
    )
    words = Remote("http://b.invalid/bpe_simple_vocab_16e6.txt.gz", vocabulary.sha256)
    monkeypatch.setattr(openai, "VOCABULARY", words)
    monkeypatch.setenv("FOVEA_MODELS_URL", f"{server.url}/")
    told = []
    report = lambda name: lambda done, total: told.append((name, done == total))  # noqa: E731
    folder = pull_openai(elsewhere, report, patience=PATIENCE)
    assert folder == place / "Tiny-8-9px"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "bpe_simple_vocab_16e6.txt.gz",
        "config.json",
        "model.safetensors",
    ]
    assert told[-1] == ("tiny.pt", True)
    assert not list(place.glob("**/*.pt")), "the archive is not kept"
    assert read_config(folder) == VIT
    expected, found = random_clip(VIT).half().state_dict(), load_clip(folder).state_dict()
    for name, tensor in expected.items():
        assert torch.allclose(found[name].float(), tensor.float(), atol=1e-3), name
    asked = len(server.asked)
    assert pull_openai(elsewhere) == folder == on_disk(model)
    assert len(server.asked) == asked


def test_a_wrong_archive_leaves_no_model(server, place, monkeypatch):
    model, vocabulary = tiny(server)
    monkeypatch.setattr(openai, "VOCABULARY", vocabulary)
    server.files["/tiny.pt"] = server.files["/tiny.pt"][:-1] + b"x"
    with pytest.raises(ModelError, match="has the SHA-256"):
        pull_openai(model, patience=PATIENCE)
    assert on_disk(model) is None
    assert not list(place.glob("**/*.pt*.part"))


def test_an_archive_that_is_no_clip_leaves_no_model(server, place, monkeypatch):
    server.files["/tiny.pt"] = b"no archive"
    model, vocabulary = tiny(server)
    monkeypatch.setattr(openai, "VOCABULARY", vocabulary)
    with pytest.raises(ModelError):
        pull_openai(model, patience=PATIENCE)
    assert on_disk(model) is None
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_models_go_where_the_platform_keeps_data_or_where_one_says(place, monkeypatch):
    assert models_folder() == place
    monkeypatch.delenv("FOVEA_MODELS")
    assert models_folder().parts[-2:] == ("fovea", "models")
