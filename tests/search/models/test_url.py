"""A model from an address: checked before anything of it is used, and told in one line if wrong."""

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from fovea.search.clip.config import ClipConfig, TextConfig
from fovea.search.errors import ModelError, ModelUnreachable
from fovea.search.models import download
from fovea.search.models import url as fetched
from fovea.search.models.download import Patience
from fovea.search.models.installed import known_models
from fovea.search.models.openai import Remote
from fovea.search.models.resolve import pull, resolve_model
from fovea.search.models.store import models_folder
from fovea.search.models.url import find_url_model, is_url, url_models
from loopback import serving
from small_clips import MERGES, VIT, random_clip, write_model

QUICK = Patience(first=1.0, silence=0.3, tries=2)
PUBLISHED_LIKE = ClipConfig(VIT.embed_dim, VIT.vision, TextConfig(16, 49408, 64, 1, 1))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder of models."""
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "USUAL", QUICK)
    for name in ("FOVEA_OFFLINE", "HF_HUB_OFFLINE", "FOVEA_MODELS_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "models"


@pytest.fixture
def server():
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small CLIP's folder."""
    place = tmp_path_factory.mktemp("source") / "tiny"
    write_model(place)
    return place


def zipped(folder, inside="tiny/", extra=()):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{inside}{path.name}")
        for name, data in extra:
            archive.writestr(name, data)
    return file.getvalue()


def tarred(folder, inside="", mode="w:gz", extra=()):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, f"{inside}{path.name}")
        for entry, data in extra:
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def offered(server, path, data):
    """Serve some bytes; return their address and SHA-256."""
    server.files[path] = data
    return f"{server.url}{path}", hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("file", "pack"),
    [
        ("tiny.zip", zipped),
        ("tiny.tar.gz", tarred),
        ("tiny.tar", lambda folder: tarred(folder, "deep/er/", "w")),
        ("tiny", lambda folder: zipped(folder, "")),
    ],
)
def test_an_archive_of_a_folder_becomes_a_model(server, folder, place, file, pack):
    url, sha256 = offered(server, f"/files/{file}?download=1".split("?")[0], pack(folder))
    model = pull(url, sha256=sha256)
    assert (model.name, model.source, model.dim) == ("tiny", "address", VIT.embed_dim)
    assert model.folder == place / "fetched" / "tiny"
    weights = (folder / "model.safetensors").read_bytes()
    assert model.identity == hashlib.sha256(weights).hexdigest()
    for name in (model.name, "TINY", url):
        assert resolve_model(name, network=False) == model
    assert [known.name for known in known_models() if known.source == "address"] == ["tiny"]
    assert list((place / "downloads").glob("*.zip")) == [], "what was unpacked is not kept twice"
    server.asked.clear()
    assert pull(url, sha256=sha256.upper()) == model and server.asked == []


@pytest.fixture
def vocabulary(server, monkeypatch):
    """The published vocabulary, or what stands for it."""
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
    lines += [f"x{n} y{n}" for n in range(49408 - 514 - len(MERGES))]
    url, sha256 = offered(server, "/bpe.txt.gz", gzip.compress("\n".join(lines).encode()))
    monkeypatch.setattr(fetched, "VOCABULARY", Remote(url, sha256))


def state_file(kind):
    from safetensors.torch import save

    state = random_clip(PUBLISHED_LIKE).state_dict()
    if kind == "safetensors":
        return save(state)
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_alone_get_the_published_vocabulary(server, place, vocabulary, kind):
    data = state_file(kind)
    url, sha256 = offered(server, f"/mine/weights-v2.{kind}", data)
    model = pull(url, sha256=sha256)
    assert (model.name, model.preprocess.size) == ("weights-v2", 64)
    assert sorted(path.name for path in model.folder.iterdir()) == [
        "bpe.txt.gz", "config.json", "model.safetensors", "source.json",
    ]  # fmt: skip
    if kind == "safetensors":
        assert model.identity == sha256
    rows = model.load(device="cpu", dtype="float32").encode_texts(["the dog"])
    assert rows.shape == (1, VIT.embed_dim)
    said = json.loads((model.folder / "source.json").read_text())
    assert said == {"url": url, "sha256": sha256}


def test_a_download_that_was_killed_goes_on(server, folder, place):
    data = zipped(folder)
    url, sha256 = offered(server, "/tiny.zip", data)
    (place / "downloads").mkdir(parents=True)
    (place / "downloads" / f"{sha256[:16]}-tiny.zip.part").write_bytes(data[:1000])
    assert pull(url, sha256=sha256).name == "tiny"
    assert server.asked == [("/tiny.zip", "bytes=1000-")]


def told(url, sha256, **options):
    """The one line that says what is wrong; nothing is left that could be taken for a model."""
    with pytest.raises(ModelError) as caught:
        pull(url, sha256=sha256, **options)
    assert url_models() == []
    kept = models_folder() / "fetched"
    assert not kept.is_dir() or list(kept.iterdir()) == []
    message = str(caught.value)
    assert "\n" not in message and ".part" not in message
    return message


def test_another_checksum_is_told_and_nothing_is_unpacked(server, folder, place):
    url, _ = offered(server, "/tiny.zip", zipped(folder))
    assert "has the SHA-256" in told(url, "0" * 64)
    assert [path.suffix for path in (place / "downloads").iterdir()] == [".lock"]


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, "0" * 63])
def test_what_is_no_checksum_is_told(server, sha256):
    assert "is not a SHA-256" in told(f"{server.url}/a", sha256)
    assert server.asked == []


@pytest.mark.parametrize(
    "url",
    ["ftp://host/a.zip", "file:///etc/passwd", "https://", "http://[::1", "http://h:99999/a"],
)
def test_what_is_no_url_of_a_file_is_told(url):
    assert "cannot be downloaded; give a URL" in told(url, "0" * 64)


def test_a_checksum_without_a_url_is_told():
    assert "--sha256 needs a URL" in told("ViT-B/32", "0" * 64)


def test_a_url_without_a_checksum_is_told_how(server):
    with pytest.raises(ModelError, match="fovea models pull URL --sha256 HEX"):
        resolve_model(f"{server.url}/tiny.zip")
    assert server.asked == []


def test_a_url_of_nothing_is_told(server):
    assert "404" in told(f"{server.url}/nothing", "0" * 64)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"nothing of the kind", "damaged or not a model"),
        (b"", "damaged or not a model|lacks"),
        (b"\x08\0\0\0\0\0\0\0{}      ", "is it a CLIP"),
    ],
)
def test_what_is_no_model_is_told_and_dropped(server, place, data, message):
    import re

    url, sha256 = offered(server, "/thing.bin", data)
    said = told(url, sha256)
    assert re.search(message, said) and url in said
    assert [path.suffix for path in (place / "downloads").iterdir()] == [".lock"]


def test_an_archive_without_a_model_is_told(server, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("nothing here")
    url, sha256 = offered(server, "/other.zip", zipped(tmp_path / "other"))
    assert "has no weights" in told(url, sha256)


def test_a_folder_of_another_kind_of_model_is_told(server, folder, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "text" / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()
    )
    url, sha256 = offered(server, "/text.zip", zipped(tmp_path / "text"))
    assert "describes bert, not a CLIP" in told(url, sha256)


def test_a_vocabulary_of_its_own_wants_an_archive(server, folder):
    data = (folder / "model.safetensors").read_bytes()
    url, sha256 = offered(server, "/tiny.safetensors", data)
    assert "has its own vocabulary" in told(url, sha256)


def test_a_torn_archive_is_told(server, folder):
    url, sha256 = offered(server, "/tiny.tar.gz", tarred(folder)[:-2000])
    assert "damaged" in told(url, sha256)


def test_an_archive_writes_nowhere_else_and_links_are_ignored(server, folder, tmp_path):
    link, parent = tarfile.TarInfo("tiny/vocab.json"), tarfile.TarInfo("../../escaped")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    program, absolute = tarfile.TarInfo("tiny/run.py"), tarfile.TarInfo("/tmp/fovea-escaped")
    extra = [(link, b""), (parent, b""), (program, b""), (absolute, b"")]
    url, sha256 = offered(server, "/tiny.tar.gz", tarred(folder, "tiny/", extra=extra))
    model = pull(url, sha256=sha256)
    names = {path.name for path in model.folder.iterdir()}
    assert names == {"model.safetensors", "config.json", "bpe.txt.gz", "line.json", "source.json"}
    assert not list(tmp_path.rglob("escaped")) and not Path("/tmp/fovea-escaped").exists()


def test_a_dead_network_is_given_up(server, folder):
    url, sha256 = offered(server, "/tiny.zip", zipped(folder))
    server.wait = 3600
    with pytest.raises(ModelUnreachable, match="does not answer"):
        pull(url, sha256=sha256)


def test_a_network_that_is_switched_off_is_not_tried(server, folder, monkeypatch):
    url, sha256 = offered(server, "/tiny.zip", zipped(folder))
    monkeypatch.setenv("FOVEA_OFFLINE", "1")
    assert "downloads are switched off" in told(url, sha256)
    assert server.asked == []


def test_a_vocabulary_that_cannot_be_had_costs_no_second_download(server, monkeypatch):
    monkeypatch.setattr(fetched, "VOCABULARY", Remote(f"{server.url}/none", "0" * 64))
    url, sha256 = offered(server, "/w.pt", state_file("pt"))
    server.status = None
    monkeypatch.setattr(fetched, "VOCABULARY", Remote("http://127.0.0.1:1/none", "0" * 64))
    with pytest.raises(ModelUnreachable):
        pull(url, sha256=sha256)
    server.asked.clear()
    with pytest.raises(ModelUnreachable):
        pull(url, sha256=sha256)
    assert server.asked == []


# Names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/photos-clip.zip", "photos-clip"),
        ("/owner/photos-clip/resolve/main/model.safetensors", "photos-clip"),
        ("/photos%20clip%C3%A9/model.tar.gz", "photos-clip"),
        ("/ViT-B-32.zip", "ViT-B-32-"),
        ("/fovea-small.zip", "fovea-small-"),
        ("/fovea-small-1.zip", "fovea-small-1-"),
        ("/Fovea-Small.zip", "Fovea-Small-"),
        ("/FOVEA-SMALL-1.zip", "FOVEA-SMALL-1-"),
        ("/ViT-B-32-256.zip", "ViT-B-32-256-"),
        ("/vitb32256x256.zip", "vitb32256x256-"),
    ],
)
def test_a_model_is_called_what_its_address_says(server, folder, path, name):
    url, sha256 = offered(server, path, zipped(folder))
    model = pull(url, sha256=sha256)
    assert model.name == name + (sha256[:8] if name.endswith("-") else "")
    assert resolve_model(model.name) == model


def test_two_models_of_one_name_are_kept_apart(server, folder):
    first = pull(*offered(server, "/a/tiny.zip", zipped(folder))[:1],
                 sha256=hashlib.sha256(zipped(folder)).hexdigest())  # fmt: skip
    other = zipped(folder, "other/")
    url, sha256 = offered(server, "/b/tiny.zip", other)
    second = pull(url, sha256=sha256)
    assert (first.name, second.name) == ("tiny", f"tiny-{sha256[:8]}")
    assert find_url_model(url).folder == second.folder


def test_a_password_in_an_address_is_not_kept(server, folder, place):
    url, sha256 = offered(server, "/tiny.zip", zipped(folder))
    secret = url.replace("http://", "http://me:secret@")
    with pytest.raises(ModelError):  # urllib takes no password in an address
        pull(secret, sha256=sha256)
    assert not [p for p in place.rglob("*") if p.is_file() and b"secret" in p.read_bytes()]


@pytest.mark.parametrize("name", ["https://h/a", "HTTP://h", "ftp://h/a", "s3://b/k"])
def test_addresses_are_told_from_names(name):
    assert is_url(name)


@pytest.mark.parametrize("name", ["ViT-B/32", "owner/name", "./a", "/a://b", "C:/models"])
def test_names_are_no_addresses(name):
    assert not is_url(name)
