import json

import pytest

from commands import run


@pytest.fixture
def place(used, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow, of fovea[cluster], is not installed")
    return tmp_path / "embeddings"


def embedded(used, place, *options):
    model = used / "model"
    return run("embed", used / "photos", "--to", place, "--model", model, "--workers", 1,
               "--dtype", "float32", *options)  # fmt: skip


def test_what_was_embedded_is_taken_into_a_library(used, place, tmp_path):
    first = embedded(used, place, "--json").json
    assert (first["embedded"], first["failed"], first["unchanged"]) == (first["found"] - 1, 1, 0)
    again = embedded(used, place)
    assert again.code == 0
    assert f" 0 embedded by model, {first['found']} unchanged" in again.out
    library = tmp_path / "new"
    taken = run("index", "--from-embeddings", place, "--library", library, "--model",
                used / "model", "--json").json  # fmt: skip
    assert (taken["rows"], taken["taken"]) == (first["embedded"], first["embedded"])
    after = run("index", "--library", library, "--json").json
    assert (after["embedded"], after["unchanged"]) == (0, first["embedded"])


def test_a_library_is_a_destination(used, place):
    report = embedded(used, place, "--as", "library", "--json").json
    after = run("index", "--library", place, "--json").json
    assert (after["embedded"], after["unchanged"]) == (0, report["found"])
    assert run("search", "red", "--library", place).code == 0
    refused = embedded(used, place, "--as", "files")
    assert refused.code == 1 and "is a library" in refused.err


def test_another_models_embeddings_are_refused_by_name(used, place):
    assert embedded(used, place).code == 0
    other = run("embed", used / "photos", "--to", place, "--model", used / "other")
    assert other.code == 1
    assert "holds embeddings of model, not other" in other.err
    taken = run("index", "--from-embeddings", place, "--library", place / "l", "--model",
                used / "other")  # fmt: skip
    assert taken.code == 1
    assert "holds embeddings of model, not other" in taken.err
    assert not (place / "l").exists()


def test_what_cannot_be_read_is_one_line(used, place):
    for source in ("https://example.org/0.tar", "ftp://x/y.tar", used / "nowhere"):
        refused = run("embed", source, "--to", place)
        assert refused.code == 1
        assert refused.err.count("\n") == 1
    assert not place.exists()


def test_a_destination_that_is_a_file_is_one_line(used, place):
    place.write_text("mine")
    refused = run("embed", used / "photos", "--to", place)
    assert refused.code == 1 and refused.err.count("\n") == 1
    assert f"{place} is not a folder" in refused.err
    assert run("index", "--from-embeddings", place).code == 2
    assert place.read_text() == "mine"


@pytest.mark.parametrize(
    ("destination", "why"),
    [("s3://b/x", "not at s3://"), ("file:///x", "not at file://")],
)
def test_files_are_in_a_folder_of_this_machine(used, tmp_path, monkeypatch, destination, why):
    monkeypatch.chdir(tmp_path)
    for words in (
        ("embed", used / "photos", "--to", destination),
        ("index", "--from-embeddings", destination),
    ):
        refused = run(*words)
        assert refused.code == 1 and refused.err.count("\n") == 1 and why in refused.err
    assert list(tmp_path.iterdir()) == []
    missing = run("index", "--from-embeddings", tmp_path / "none")
    assert missing.code == 1 and "there is no folder" in missing.err


def test_a_shard_that_is_missing_ends_with_1(used, place, tmp_path):
    done = run("embed", tmp_path / "{0..1}.tar", "--to", place, "--model", used / "model", "--json")
    assert done.code == 1
    assert json.loads(done.out)["embedded"] == 0
    assert done.err.count("not there") == 2


def test_options_that_contradict_each_other_are_refused(used, place):
    refused = run("index", "--from-embeddings", place, "--reread")
    assert refused.code == 2


@pytest.mark.parametrize(
    ("name", "source"), [("evil/repo", "hub"), ("x", "{place}"), ("ViT-B/32", "published")]
)
def test_a_model_that_a_manifest_names_is_neither_fetched_nor_opened(
    used, place, tmp_path, monkeypatch, name, source
):
    """Only models of this machine count, by identity."""
    assert embedded(used, place).code == 0
    asked = []
    for function in ("pull_hub", "pull_openai", "describe_model"):
        monkeypatch.setattr(
            f"fovea.search.models.resolve.{function}", lambda *a, **_: asked.append(a)
        )
    path = place / "manifest.json"
    about = json.loads(path.read_text())
    about["model"] |= {"identity": "e1" * 32, "name": name, "source": source.format(place=place)}
    path.write_text(json.dumps(about))
    library = tmp_path / "new"
    for words in (
        ("index", "--from-embeddings", place, "--library", library),
        ("embed", used / "photos", "--to", place),
    ):
        refused = run(*words)
        assert refused.code == 1 and refused.err.count("\n") == 1
        assert "if you trust it, name it: --model " in refused.err
    assert not asked and not library.exists()


def test_a_name_in_a_manifest_changes_no_terminal(used, place, tmp_path):
    assert embedded(used, place).code == 0
    path = place / "manifest.json"
    about = json.loads(path.read_text())
    about["model"] |= {"identity": "e1" * 32, "name": "\x1b[31m;\nfake: $(line)", "source": "hub"}
    path.write_text(json.dumps(about))
    refused = run("index", "--from-embeddings", place, "--library", tmp_path / "new")
    assert refused.err.count("\n") == 1 and refused.err[:-1].isprintable()
    assert "--model '[31m; fake: $(line)'" in refused.err


def test_what_is_broken_later_ends_with_1_and_folders_are_named(used, place, tmp_path):
    first = embedded(used, place, "--part", 2, "--json").json
    path = place / "metadata" / "metadata_00000000.parquet"
    data = bytearray(path.read_bytes())
    data[4:40] = bytes(36)
    path.write_bytes(data)
    taken = run("index", "--from-embeddings", place, "--library", tmp_path / "new", "--model",
                used / "model", "--json")  # fmt: skip
    assert taken.code == 1
    assert json.loads(taken.out)["taken"] == first["embedded"] - 2
    assert f"{path} is damaged" in taken.err
    assert f"{used / 'photos'}, where the embeddings are from, is a folder" in taken.err
