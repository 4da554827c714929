import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.errors import ModelError
from fovea.search.models import hub
from fovea.search.models.hub import files_to_fetch, hub_models, is_hub_id
from fovea.search.models.named_hub import RECOMMENDED
from loopback import serving, serving_hub
from places import CHECKOUT
from small_clips import MERGES, VIT, random_clip, write_model, write_open_clip

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


def pulled(server, folder, name="owner/tiny", program=PULL, **environment):
    """Pull in a process of its own: the hub's client reads the environment when imported."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    environment = kept | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(folder / "hf"),
        "FOVEA_MODELS": str(folder / "models"),
        "no_proxy": "*",
        **environment,
    }
    command = [sys.executable, "-c", program, name]
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


def test_weights_resume_where_an_interrupted_download_ended(server, tmp_path):
    weights = "/owner/tiny/model.safetensors"
    size = len(server.files[weights])
    server.cuts, server.cut_after = 4, 0  # it breaks before anything has come, too often
    failed = pulled(server, tmp_path)
    assert failed.returncode == 1 and "ModelUnreachable" in failed.stderr
    server.cuts, server.cut_after = 2, size // 3  # and then on the way
    run = pulled(server, tmp_path)
    assert run.returncode == 0, run.stderr
    asked = [part for path, part in server.asked if path.endswith("model.safetensors") and part]
    assert asked[-2:] == [f"bytes={size // 3}-", f"bytes={size // 3 * 2}-"]
    folder = Path(run.stdout.split()[0])
    assert (folder / "model.safetensors").read_bytes() == server.files[weights]


def test_damaged_weights_are_told_and_not_kept(server, tmp_path):
    weights = "/owner/tiny/model.safetensors"
    server.meant["/owner/tiny/resolve/main/model.safetensors"] = server.files[weights]
    server.files[weights] = server.files[weights][:-1] + b"\0"
    run = pulled(server, tmp_path)
    assert run.returncode == 1
    assert "ModelDamaged" in run.stderr and "has the SHA-256" in run.stderr
    assert not list((tmp_path / "hf").rglob("*.part"))
    server.files[weights] = server.meant["/owner/tiny/resolve/main/model.safetensors"]
    assert pulled(server, tmp_path).returncode == 0


def test_progress_is_told_in_bytes_of_the_weights(server, tmp_path):
    program = (
        "import sys; from fovea.search.models.resolve import pull; "
        "say = lambda file: lambda done, total: print(file, done, total); pull(sys.argv[1], say)"
    )
    run = pulled(server, tmp_path, program=program)
    size = len(server.files["/owner/tiny/model.safetensors"])
    assert run.stdout.splitlines()[-1] == f"model.safetensors {size} {size}", run.stderr


@pytest.mark.parametrize(
    "name",
    ["ViT-B-32-256", "vit-b/32-256", "ViT-B/32@256px", "VIT_B_32_256x256", RECOMMENDED.hub_id],
)
def test_the_recommended_model_comes_by_any_of_its_names(tmp_path, name):
    state = random_clip(VIT).state_dict()
    write_open_clip(tmp_path / "source", state, VIT)
    Tokenizer(MERGES).save(tmp_path / "source")
    with serving_hub() as served:
        for path in (tmp_path / "source").iterdir():
            served.files[f"/{RECOMMENDED.hub_id}/{path.name}"] = path.read_bytes()
        program = (
            "import sys; from fovea.search.models.resolve import pull, resolve_model; "
            "from fovea.search.models.installed import best_on_disk, delete_files, known_models; "
            "m = pull(sys.argv[1]); print(m.name, m.source, m.dim, best_on_disk().name); "
            "assert resolve_model(network=False) == m == pull(sys.argv[1].upper()); "
            "assert [k.name for k in known_models() if k.source == 'hub'] == ['ViT-B-32-256']; "
            "assert delete_files(sys.argv[1]) > 1000 and best_on_disk() is None"
        )
        run = pulled(served, tmp_path, name, program=program)
    assert run.stdout.split() == ["ViT-B-32-256", "hub", "48", "ViT-B-32-256"], run.stderr


def test_offline_the_recommended_model_is_told_by_its_short_name(server, tmp_path):
    run = pulled(server, tmp_path, "vit-b/32-256", HF_HUB_OFFLINE="1")
    assert "ViT-B-32-256 is not on this disk; to allow downloads" in run.stderr
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


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """Fetch a file of which the hub's client is told these addresses, one after the other."""

    def fetch(*places, data=b"weights"):
        told = [
            SimpleNamespace(location=place, etag=hashlib.sha256(data).hexdigest())
            for place in places
        ]
        asked = iter(told)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: next(asked))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        hub._fetch_blob("owner/tiny", "model.safetensors", None)
        return (tmp_path / "cache/models--owner--tiny/blobs" / told[0].etag).read_bytes()

    return fetch


def test_an_address_that_has_expired_is_asked_for_again(fetched):
    with serving() as served:
        served.files["/new"] = b"weights"
        assert fetched(f"{served.url}/old?signed=1", f"{served.url}/new?signed=2") == b"weights"
        assert [path for path, _ in served.asked] == ["/old?signed=1", "/new?signed=2"]
        with pytest.raises(ModelError) as error:
            fetched(f"{served.url}/old", f"{served.url}/older", f"{served.url}/new", data=b"others")
    assert str(error.value) == (
        f"cannot fetch owner/tiny: {served.url}/older answered 404 Not Found; try again later"
    )


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/x"])
def test_an_address_that_is_not_of_the_web_is_refused(fetched, place):
    with pytest.raises(ModelError, match=r"owner/tiny: the hub leads to (file|ftp|): instead"):
        fetched(place)


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
