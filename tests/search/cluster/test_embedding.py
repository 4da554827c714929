"""``fovea embed`` and ``fovea index --from-embeddings`` into a library on a real Milvus server."""

import json

import pytest

from coloured import COLOURS, encoded
from commands import run, settle
from fovea.search.cluster.address import FOLDER
from fovea.search.cluster.store import Store
from libraries import eventually
from small_clips import write_model


@pytest.fixture
def home(tmp_path, monkeypatch, cluster):
    """Pictures of one colour each and a broken one, with a model; nothing is indexed."""
    pytest.importorskip("pyarrow", reason="pyarrow, of fovea[cluster], is not installed")
    settle(monkeypatch, tmp_path)
    write_model(tmp_path / "model")
    write_model(tmp_path / "other", seed=1)
    (tmp_path / "photos").mkdir()
    for number, colour in enumerate(COLOURS):
        (tmp_path / "photos" / f"{colour}.png").write_bytes(encoded(colour, number))
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return tmp_path


def embedded(home, place, *options):
    return run("embed", home / "photos", "--to", place, "--model", home / "model", "--workers", 1,
               "--dtype", "float32", "--json", *options)  # fmt: skip


def names_there(cluster):
    pictures = (one for batch in Store(cluster).pictures() for one in batch)
    return sorted(file.path.rpartition(b"/")[2].decode() for one in pictures for file in one.files)


NAMES = sorted(f"{colour}.png" for colour in COLOURS)


def check_indexed(address, cluster):
    """See that all pictures are there, that nothing is left to do, and that they are found."""
    eventually(lambda: names_there(cluster) == NAMES)
    after = run("index", "--library", address, "--json").json
    assert after["embedded"] == 0 and after["unchanged"] >= len(NAMES)
    assert run("verify", "--library", address).code == 0
    found = run("search", "red", "--library", address, "--json")
    assert found.code == 0 and "red.png" in found.out
    assert names_there(cluster) == NAMES


def test_pictures_are_embedded_into_it_once(home, address, cluster, monkeypatch, tmp_path):
    first = embedded(home, address)
    assert first.json["embedded"] == len(NAMES) and first.json["failed"] == 1
    assert f"passed on to Milvus: {len(NAMES)} pictures" in first.err
    again = embedded(home, address)
    assert (again.json["embedded"], again.json["unchanged"]) == (0, len(NAMES) + 1)
    assert "passed on" not in again.err
    check_indexed(address, cluster)
    sound = run("verify", "--library", address, "--json").json
    assert sound["ok"] and sound["milvus"] == {"ok": True, "problems": []}
    monkeypatch.setattr("fovea.search.cluster.ledger.compared", lambda library: ["one lacks"])
    behind = run("verify", "--library", address, "--json")
    said = json.loads(behind.out)
    assert behind.code == 1 and not said["ok"] and said["milvus"]["problems"] == ["one lacks"]
    monkeypatch.setenv(FOLDER, str(tmp_path / "elsewhere"))
    mistyped = run("status", "--library", f"{address}s")
    assert mistyped.code == 1 and "nothing is indexed in milvus://" in mistyped.err
    assert not (tmp_path / "elsewhere").exists()


def test_embeddings_in_files_are_taken_into_it_once(home, address, cluster):
    assert embedded(home, home / "files").code == 0
    words = ("index", "--from-embeddings", home / "files", "--library", address, "--model",
             home / "model", "--json")  # fmt: skip
    first = run(*words)
    assert (first.json["rows"], first.json["taken"]) == (len(NAMES), len(NAMES))
    assert f"passed on to Milvus: {len(NAMES)} pictures" in first.err
    again = run(*words)
    assert (again.json["taken"], again.json["unchanged"]) == (0, len(NAMES))
    assert "passed on" not in again.err
    check_indexed(address, cluster)


def test_another_models_embeddings_do_not_get_there(home, address, cluster):
    assert embedded(home, address).code == 0
    run("embed", home / "photos", "--to", home / "files", "--model", home / "other")
    refused = run("index", "--from-embeddings", home / "files", "--library", address)
    assert refused.code == 1 and refused.err.count("\n") == 1
    assert "embeddings of other" in refused.err and "uses model" in refused.err
    refused = run("embed", home / "photos", "--to", address, "--model", home / "other")
    assert refused.code == 1 and "uses model" in refused.err
    eventually(lambda: names_there(cluster) == NAMES)
