import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from closeness import assert_close_rows
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.errors import ModelDamaged, ModelError, ModelUnreachable
from fovea.search.library.rows import ModelRow
from fovea.search.models import download as fetch
from fovea.search.models import info as models
from fovea.search.models import installed
from fovea.search.models.installed import available_models, known_models
from fovea.search.models.lazy import LazyEncoder
from fovea.search.models.resolve import load_model, pull, resolve_listed, resolve_model
from fovea.search.models.store import write_notes
from loopback import serving
from places import CHECKOUT
from small_clips import RESNET, VIT, write_model


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder of models, and a network that must not be used."""
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("no_proxy", "*")
    for name in ("FOVEA_OFFLINE", "HF_HUB_OFFLINE", "FOVEA_MODELS_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "models"


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """A small model that stands for the bundled one."""
    write_model(tmp_path / "bundled")
    monkeypatch.setattr(installed, "bundled_model", lambda: tmp_path / "bundled")
    return tmp_path / "bundled"


@pytest.fixture
def no_network(monkeypatch):
    """Note every attempt to fetch something, and let none succeed."""
    asked = []

    def refuse(url, *args, **options):
        asked.append(url)
        raise ModelUnreachable("the network is unreachable")

    monkeypatch.setattr("fovea.search.models.download.download", refuse)
    return asked


def row(info, **changes):
    """The library's memory of a model."""
    values = {
        "id": 1,
        "name": info.name,
        "identity": info.identity,
        "dim": info.dim,
        "source": info.source,
    }
    return ModelRow(**values | changes)


def test_a_folder_is_described_without_loading_it(tmp_path):
    write_model(tmp_path / "mine")
    info = resolve_model(str(tmp_path / "mine"))
    weights = (tmp_path / "mine" / "model.safetensors").read_bytes()
    assert (info.name, info.dim, info.preprocess.size) == ("mine", VIT.embed_dim, 64)
    assert info.identity == hashlib.sha256(weights).hexdigest()
    assert info.source == str(tmp_path / "mine")


def test_a_weights_file_is_a_model_too(tmp_path):
    write_model(tmp_path / "mine")
    info = resolve_model(str(tmp_path / "mine" / "model.safetensors"))
    assert (info.name, info.folder.name) == ("model", "model.safetensors")


def test_describing_a_model_imports_no_torch(tmp_path):
    write_model(tmp_path / "mine")
    code = (
        "import sys, fovea.search.models.resolve as m\n"
        "m.resolve_model(sys.argv[1])\n"
        "assert not {'torch', 'openvino', 'huggingface_hub'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "mine")]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_without_a_request_the_librarys_model_is_taken(tmp_path, bundled, no_network):
    write_model(tmp_path / "mine", seed=1)
    mine = resolve_model(str(tmp_path / "mine"))
    assert resolve_model(None, row(mine)) == mine
    assert no_network == []


def test_a_librarys_model_is_found_where_it_is_now(tmp_path, bundled, no_network):
    info = resolve_model("fovea-small")
    moved = row(info, source=str(tmp_path / "gone"), name="mine")
    assert resolve_model(None, moved).folder == bundled


def test_a_librarys_model_that_is_gone_is_told_with_the_next_step(tmp_path, bundled, no_network):
    mine = row(resolve_model("fovea-small"), identity="0" * 64, source=str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="fovea models use MODEL"):
        resolve_model(None, mine)


def test_a_librarys_model_whose_weights_changed_is_not_used(bundled):
    old = row(resolve_model("fovea-small"))
    write_model(bundled, seed=9)
    with pytest.raises(ModelError, match="its weights have changed"):
        resolve_model(None, old)


def test_without_any_the_best_on_the_disk_is_taken(place, bundled, no_network):
    for name in ("RN50", "ViT-B-16", "ViT-B-32"):
        write_model(place / name)
    assert resolve_model().name == "ViT-B/16"
    assert no_network == []


def test_a_model_on_the_disk_that_cannot_be_read_is_ignored(place, bundled, caplog):
    for name in ("RN50", "ViT-L-14"):
        write_model(place / name)
    (place / "ViT-L-14" / "config.json").write_text("{")
    assert resolve_model().name == "RN50"
    assert "ignoring ViT-L/14" in caplog.text


def test_without_any_the_bundled_one_is_taken_at_once(bundled, no_network, caplog):
    with caplog.at_level(logging.WARNING):
        info = resolve_model()
    assert (info.name, info.source, info.folder) == ("fovea-small", "bundled", bundled)
    assert (caplog.records, no_network) == ([], [])


@pytest.mark.parametrize("name", ["FOVEA_OFFLINE", "HF_HUB_OFFLINE"])
def test_a_network_that_is_switched_off_is_not_tried(bundled, no_network, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert resolve_model().name == "fovea-small"
    with pytest.raises(ModelUnreachable, match="not on this disk"):
        resolve_model("ViT-B/32")
    with pytest.raises(ModelUnreachable, match="not on this disk"):
        resolve_model("owner/name")
    assert no_network == []


def test_a_model_that_is_asked_for_in_vain_is_told_with_what_to_do(no_network):
    for ask in (resolve_model, pull):
        with pytest.raises(ModelUnreachable) as caught:
            ask("ViT-B/32")
        said = str(caught.value)
        assert said.startswith("cannot fetch ViT-B/32: the network is unreachable; try again")
        assert "FOVEA_MODELS_URL" in said and "fovea-small" in said


def test_a_wrong_download_is_not_used(monkeypatch):
    with serving() as served:
        served.files["/bpe_simple_vocab_16e6.txt.gz"] = b"not the vocabulary"
        monkeypatch.setenv("FOVEA_MODELS_URL", served.url)
        with pytest.raises(ModelDamaged, match="SHA-256"):
            resolve_model("ViT-B/32")


def test_without_the_bundled_model_the_next_step_is_told(monkeypatch, no_network):
    monkeypatch.setattr(installed, "bundled_model", lambda: None)
    with pytest.raises(ModelError, match="install fovea again"):
        resolve_model()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-model", "there is no model 'no-such-model'; choose fovea-small, RN50,"),
        ("no-such-model", "ViT-L/14@336px, ViT-B-32-256, a folder, or owner/name"),
        ("/no/such/folder", "there is no model"),
        ("./owner/name", "there is no model"),
        ("a/b/c", "there is no model"),
        ("", "there is no model"),
    ],
)
def test_a_name_of_nothing_is_told_with_the_names_there_are(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        resolve_model(name)


def test_a_folder_without_vocabulary_is_refused_before_any_work(tmp_path):
    write_model(tmp_path / "mine")
    (tmp_path / "mine" / "bpe.txt.gz").unlink()
    with pytest.raises(ModelError, match="no vocabulary"):
        resolve_model(str(tmp_path / "mine"))


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has UTF-8 names only")
def test_a_folder_whose_name_is_not_utf8_is_refused(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write_model(tmp_path / "mine")
    os.rename(tmp_path / "mine", folder)
    with pytest.raises(ModelError, match="not UTF-8"):
        resolve_model(str(folder))


def test_an_identity_is_remembered_until_the_file_changes(tmp_path, place, monkeypatch):
    write_model(tmp_path / "mine")
    weights = tmp_path / "mine" / "model.safetensors"
    os.utime(weights, (1e9, 1e9))
    first = resolve_model(str(tmp_path / "mine")).identity
    assert str(weights) in json.loads((place / "identities.json").read_text())
    with monkeypatch.context() as patch:
        patch.setattr(models, "weights_sha256", lambda path: pytest.fail("read again"))
        assert resolve_model(str(tmp_path / "mine")).identity == first
    write_model(tmp_path / "mine", seed=5)
    assert resolve_model(str(tmp_path / "mine")).identity != first


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, place):
    write_model(tmp_path / "mine")
    resolve_model(str(tmp_path / "mine"))
    assert not (place / "identities.json").exists()


@pytest.mark.parametrize("damage", ["{", "[]", '{"x": 3}', "\0"])
def test_a_damaged_memory_of_identities_does_no_harm(tmp_path, place, damage):
    write_model(tmp_path / "mine")
    os.utime(tmp_path / "mine" / "model.safetensors", (1e9, 1e9))
    place.mkdir()
    (place / "identities.json").write_text(damage)
    assert len(resolve_model(str(tmp_path / "mine")).identity) == 64


def test_known_models_say_which_are_here(place, bundled):
    write_model(place / "RN101")
    known = {model.name: model for model in known_models()}
    assert len(known) == 11
    assert (known["ViT-B-32-256"].source, known["ViT-B-32-256"].folder) == ("hub", None)
    assert known["fovea-small"].folder == bundled
    assert known["RN101"].folder == place / "RN101"
    assert known["RN50"].folder is None


def test_the_names_there_are_can_be_loaded(bundled, tmp_path, no_network):
    assert {"fovea-small", "ViT-B/32", "RN50"} <= set(available_models())
    write_model(tmp_path / "RN50", seed=3)  # a folder, though it is called like a published one
    texts = ["the dog", "a cat"]
    for name, folder in (("fovea-small", bundled), (tmp_path / "RN50", tmp_path / "RN50")):
        model = load_model(name, device="cpu", dtype="float32")
        expected = load_encoder(folder, device="cpu", dtype="float32").encode_texts(texts)
        rows = model.encode_texts(texts)
        assert rows == pytest.approx(expected) and rows.dtype == "float32"
    with pytest.raises(ModelError, match="no device 'abacus'"):
        load_model("fovea-small", device="abacus")


def test_a_lazy_encoder_loads_the_real_one_for_pictures_alone(bundled, monkeypatch):
    loaded = []
    load = models.ModelInfo.load
    monkeypatch.setattr(
        models.ModelInfo, "load", lambda self, **o: loaded.append(o) or load(self, **o)
    )
    info = resolve_model("fovea-small")
    lazy = LazyEncoder.of(info, dtype="float32", device="cpu")
    words = lazy.encode_texts(["the dog"])
    assert loaded == []
    real = load(info, dtype="float32", device="cpu")
    assert_close_rows(words, real.encode_texts(["the dog"]))
    from PIL import Image

    image = Image.new("RGB", (90, 70), "red")
    assert_close_rows(lazy.encode_images([image]), real.encode_images([image]))
    lazy.encode_texts(["the dog"])
    assert loaded == [{"device": "cpu", "dtype": "float32"}]
    assert real.identity == info.identity


def test_a_lazy_encoder_heeds_a_precision_that_is_asked_for(bundled):
    info = resolve_model("fovea-small")
    lazy = LazyEncoder.of(info, dtype="bfloat16", device="cpu")
    rows = lazy.encode_texts(["the dog"])
    exact = LazyEncoder.of(info).encode_texts(["the dog"])
    assert_close_rows(rows, exact, "bfloat16")
    assert (rows != exact).any()


def test_a_device_that_is_not_there_is_told(bundled):
    with pytest.raises(ModelError, match="no device 'abacus'"):
        LazyEncoder.of(resolve_model("fovea-small"), device="abacus").encode_texts(["x"])


def test_a_resnet_has_its_own_size(tmp_path):
    write_model(tmp_path / "resnet", RESNET)
    assert resolve_model(str(tmp_path / "resnet")).preprocess.size == 96


def test_patience_is_three_seconds_by_default():
    assert fetch.Patience().first <= 3.0


def test_a_listed_model_is_never_a_folder_of_its_name(place, tmp_path, monkeypatch):
    write_model(place / "pulled")
    write_notes("hub.json", {"owner/tiny": str(place / "pulled")})
    write_model(tmp_path / "here" / "owner" / "tiny", seed=1)
    monkeypatch.chdir(tmp_path / "here")
    assert resolve_model("owner/tiny").folder == tmp_path / "here" / "owner" / "tiny"
    found = resolve_listed("owner/tiny")
    assert (found.folder, found.source) == (place / "pulled", "hub")
    for name in ("owner", "./owner/tiny", "Owner/Tiny"):
        with pytest.raises(ModelError, match="there is no model"):
            resolve_listed(name)
