import os
import subprocess
import sys
from pathlib import Path

import pytest

from fovea.search.errors import ModelError
from fovea.search.models.hub import files_to_fetch, hub_models, is_hub_id
from loopback import serving_hub
from places import CHECKOUT
from small_clips import write_model

PULL = (
    "import sys; from fovea.search.models.resolve import pull; "
    "m = pull(sys.argv[1]); print(m.folder, m.source)"
)


@pytest.fixture
def server(tmp_path):
    write_model(tmp_path / "source")
    with serving_hub() as served:
        for path in (tmp_path / "source").iterdir():
            served.files[f"/owner/tiny/{path.name}"] = path.read_bytes()
        served.files["/owner/tiny/pytorch_model.bin"] = b"the same again"
        served.files["/owner/text/config.json"] = b'{"model_type": "bert"}'
        served.files["/owner/text/model.safetensors"] = b"\0" * 8
        yield served


def pulled(server, folder, name="owner/tiny", **environment):
    """Pull in a process of its own: the hub's client reads the environment when imported."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    environment = kept | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(folder / "hf"),
        "FOVEA_MODELS": str(folder / "models"),
        "no_proxy": "*",
        **environment,
    }
    command = [sys.executable, "-c", PULL, name]
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)


def test_a_model_of_the_hub_comes_through_its_client_once(server, tmp_path, monkeypatch):
    run = pulled(server, tmp_path)
    assert run.returncode == 0, run.stderr
    folder, source = run.stdout.split()
    assert source == "hub"
    assert (Path(folder) / "model.safetensors").read_bytes() == server.files[
        "/owner/tiny/model.safetensors"
    ]
    names = {path.name for path in Path(folder).iterdir()}
    assert names == {"model.safetensors", "config.json", "bpe.txt.gz"}, "one set of weights"
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path / "models"))
    assert hub_models() == {"owner/tiny": Path(folder)}
    server.asked.clear()
    offline = pulled(server, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.stdout == run.stdout, offline.stderr
    (tmp_path / "models" / "hub.json").unlink()
    cached = pulled(server, tmp_path, HF_HUB_OFFLINE="1")
    assert cached.stdout == run.stdout, cached.stderr
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "message"),
    [("owner/nothing", "cannot fetch owner/nothing"), ("owner/text", "describes bert")],
)
def test_what_is_not_there_or_no_clip_is_told_in_one_line(server, tmp_path, name, message):
    run = pulled(server, tmp_path, name)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("fovea.search.clip.errors.ModelError:")
    assert message in last


def test_offline_a_model_that_is_not_here_is_told(server, tmp_path):
    run = pulled(server, tmp_path, HF_HUB_OFFLINE="1")
    assert "owner/tiny is not on this disk; to allow downloads, unset HF_HUB_OFFLINE" in run.stderr
    assert server.asked == []


def test_a_hub_that_does_not_answer_is_told(tmp_path):
    with serving_hub() as served:
        url = served.url
    served.url = url  # nobody listens there any more
    run = pulled(served, tmp_path)
    assert f"{url} does not answer; try again when online" in run.stderr


@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch32", "a/b", "A1/b_c.d-e"])
def test_owner_and_name_are_an_id(name):
    assert is_hub_id(name)


@pytest.mark.parametrize("name", ["a", "a/b/c", "/a/b", "../b", "./b", "a/", "a b/c", "~/x", ""])
def test_other_things_are_none(name):
    assert not is_hub_id(name)


def test_weights_in_several_files_come_with_their_index():
    index, shards = "model.safetensors.index.json", ["model-1-of-2.safetensors", "x.safetensors"]
    wanted = files_to_fetch("a/b", ["config.json", index, *shards, "x.h5"])
    assert wanted == [index, "config.json", "model-1-of-2.safetensors"]


def test_a_repository_without_weights_is_told():
    with pytest.raises(ModelError, match="a/b has no weights"):
        files_to_fetch("a/b", ["README.md", "tf_model.h5"])


@pytest.mark.parametrize("damage", ["{", "[1]", '{"a/b": 3}', '{"a/b": "/nowhere"}'])
def test_a_damaged_register_is_an_empty_one(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path))
    (tmp_path / "hub.json").write_text(damage)
    assert hub_models() == {}
