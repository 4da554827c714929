import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.nn.functional import normalize

from places import CHECKOUT

pytest.importorskip("transformers", reason="the optional extra 'transformers' is not installed")

from closeness import assert_close_rows  # noqa: E402
from foreign_clips import write_foreign  # noqa: E402
from fovea.cli import cli  # noqa: E402
from fovea.search.clip.checkpoints.families import FAMILIES  # noqa: E402
from fovea.search.clip.encoders.load import load_encoder  # noqa: E402
from fovea.search.clip.encoders.numpy_text import NumpyTextEncoder  # noqa: E402
from fovea.search.clip.errors import ModelError  # noqa: E402
from fovea.search.models.lazy import LazyEncoder  # noqa: E402
from fovea.search.models.resolve import resolve_model  # noqa: E402
from loopback import serving_hub  # noqa: E402

TEXTS = ["a red dog on the beach", "ein hund am strand", "红色自行车", "一只狗在海滩上", "cat"]


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(1, height // 4), max(1, width // 4), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


PICTURES = [noise(*size) for size in ((64, 48), (48, 65), (33, 90), (32, 32), (200, 30), (41, 37))]


def exact(folder):
    return load_encoder(folder, device="cpu", dtype="float32")


@pytest.mark.parametrize("together", [True, False], ids=["one file", "two files"])
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_embeddings_equal_those_of_transformers_itself(tmp_path, kind, together):
    own = write_foreign(tmp_path / "m", kind, together=together)
    encoder = exact(tmp_path / "m")
    want = np.concatenate([own.images([picture]) for picture in PICTURES])
    got = encoder.encode_images(PICTURES)
    assert got.dtype == np.float32 and got.shape == (len(PICTURES), encoder.dim)
    assert_close_rows(got, want)
    assert_close_rows(encoder.encode_texts(TEXTS), own.texts(TEXTS))
    assert encoder.encode_texts([]).shape == (0, encoder.dim)
    spread = want @ want.T
    assert spread.min() < 0.95, "the random model tells pictures apart"


@pytest.fixture(scope="module")
def chinese(tmp_path_factory):
    """The folder of a small Chinese-CLIP, and what transformers makes of it."""
    folder = tmp_path_factory.mktemp("models") / "chinese"
    return folder, write_foreign(folder, "chinese_clip")


@pytest.fixture
def copied(chinese, tmp_path):
    """A copy of the small Chinese-CLIP that may be damaged."""
    return Path(shutil.copytree(chinese[0], tmp_path / "copied"))


def test_texts_that_exceed_the_context_are_cut(chinese):
    folder, own = chinese
    long = "红" * 500
    [row] = exact(folder).encode_texts([long])
    tokens = own.tokenizer([long], truncation=True, max_length=64, return_tensors="pt")
    want = own.model.get_text_features(**tokens)
    want = (want if hasattr(want, "norm") else want.pooler_output)[0].detach().numpy()
    assert_close_rows(row, want / np.linalg.norm(want))


def test_positions_that_count_from_the_pad_id_leave_fewer(tmp_path):
    write_foreign(tmp_path / "m", "vision-text-dual-encoder")
    assert exact(tmp_path / "m").encode_texts(["red " * 100]).shape == (1, 512)


def test_a_folder_is_described_without_torch_or_transformers(chinese, tmp_path):
    folder, _ = chinese
    code = (
        "import sys, fovea.search.models.resolve as m\n"
        "i = m.resolve_model(sys.argv[1])\n"
        "print(i.family, i.dim, i.preprocess.size, i.preprocess.fit, i.identity)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    environment = os.environ | {"FOVEA_MODELS": str(tmp_path)}
    command = [sys.executable, "-c", code, str(folder)]
    run = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    weights = (folder / "model.safetensors").read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    assert run.stdout.split() == ["chinese_clip", "24", "32", "squash", digest]


def test_words_go_through_transformers_too(chinese):
    folder, own = chinese
    assert NumpyTextEncoder.open(folder) is None
    lazy = LazyEncoder.of(resolve_model(str(folder)), device="cpu", dtype="float32")
    assert_close_rows(lazy.encode_texts(TEXTS), own.texts(TEXTS))


def test_the_scale_is_that_of_the_weights(chinese):
    folder, own = chinese
    assert exact(folder).logit_scale == pytest.approx(
        own.model.logit_scale.detach().exp().item(), rel=1e-5
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_module_that_is_converted_computes_in_float32(chinese, dtype):
    folder, own = chinese
    encoder = load_encoder(folder, device="cpu", dtype=dtype)
    pixels = torch.from_numpy(np.stack([encoder.preprocess.pixels(one) for one in PICTURES]))
    with torch.inference_mode():
        found = normalize(encoder._module()()(pixels), dim=-1).numpy()
        half = encoder._tower_in("bfloat16")(pixels)
    want = np.concatenate([own.images([picture]) for picture in PICTURES])
    assert_close_rows(found, want)
    assert half.dtype == torch.bfloat16
    assert_close_rows(normalize(half.float(), dim=-1).numpy(), want, "bfloat16")


def test_half_precision_comes_close(chinese):
    folder, own = chinese
    rows = load_encoder(folder, device="cpu", dtype="bfloat16").encode_images(PICTURES[:2])
    want = np.concatenate([own.images([picture]) for picture in PICTURES[:2]])
    assert_close_rows(rows, want, "bfloat16")


def test_weights_in_several_files_are_read(chinese, tmp_path):
    folder, own = chinese
    sharded = Path(shutil.copytree(folder, tmp_path / "sharded"))
    (sharded / "model.safetensors").unlink()
    own.model.save_pretrained(sharded, max_shard_size="20KB")
    assert (sharded / "model.safetensors.index.json").is_file()
    assert_close_rows(exact(sharded).encode_texts(TEXTS), own.texts(TEXTS))


def test_a_sentencepiece_vocabulary_is_read(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    import transformers

    own = write_foreign(tmp_path / "m", "siglip")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "m" / name).unlink()
    (tmp_path / "text").write_text(
        "a photo of the red dog on the beach\nzwei hunde am strand\n" * 9
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "spiece"), vocab_size=40,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    own.tokenizer = transformers.SiglipTokenizer(str(tmp_path / "spiece.model"))
    own.tokenizer.save_pretrained(tmp_path / "m")
    texts = ["A red dog!", "zwei hunde"]
    assert_close_rows(exact(tmp_path / "m").encode_texts(texts), own.texts(texts))


# What is wrong is told in one line


def changed(path, change):
    said = json.loads(path.read_text("utf-8"))
    change(said)
    path.write_text(json.dumps(said), "utf-8")


def refused(folder):
    with pytest.raises(ModelError) as caught:
        resolve_model(str(folder)).load(device="cpu").encode_texts(["x"])
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_pickled_weights_are_refused(copied):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    assert "pytorch_model.bin; fovea reads a chinese_clip only from safetensors" in refused(copied)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_program_beside_the_weights_is_never_run(copied, tmp_path, at_once):
    trap = tmp_path / "sprung"
    (copied / "trap.py").write_text(f"open({str(trap)!r}, 'w')\nclass Trap: pass\n")
    told = {"auto_map": {"AutoModel": "trap.Trap", "AutoConfig": "trap.Trap"}}
    if at_once:
        changed(copied / "config.json", lambda said: said["text_config"].update(told))
        assert "never runs" in refused(copied)
    else:
        changed(copied / "config.json", lambda said: said.update(told))
        changed(
            copied / "tokenizer_config.json",
            lambda said: said.update(auto_map={"AutoTokenizer": ["trap.Trap", None]}),
        )
        assert exact(copied).encode_texts(["红"]).shape == (1, 24)
    assert not trap.exists()


def test_weights_that_lack_a_part_are_refused_and_none_is_drawn(chinese, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(chinese[0], tmp_path / "torn"))
    state = load_file(folder / "model.safetensors")
    del state["text_model.encoder.layer.0.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lacks text_model.encoder.layer.0.output.dense.weight" in refused(folder)
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lacks visual_projection.weight" in refused(folder)


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"{"])
def test_damaged_weights_are_told(copied, damage):
    (copied / "model.safetensors").write_bytes(damage)
    assert "is damaged" in refused(copied)


def test_a_folder_without_its_tokenizer_is_told(copied):
    for name in ("tokenizer.json", "vocab.txt"):
        (copied / name).unlink(missing_ok=True)
    assert "has no tokenizer" in refused(copied)


def test_a_damaged_tokenizer_is_told(copied):
    (copied / "vocab.txt").unlink()
    (copied / "tokenizer.json").write_text("{")
    assert "transformers cannot load" in refused(copied)


def test_a_folder_that_does_not_say_how_it_sees_is_told(copied):
    (copied / "processor_config.json").unlink()
    assert "has no preprocessor_config.json" in refused(copied)


def test_without_the_extra_the_way_to_it_is_told(chinese, monkeypatch):
    monkeypatch.setattr("fovea.search.clip.checkpoints.families.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs an extra: pip install 'fovea\[transformers\]'"):
        resolve_model(str(chinese[0]))


def test_pictures_of_another_size_than_the_towers_are_told(copied):
    changed(copied / "config.json", lambda said: said["vision_config"].update(image_size=48))
    assert "image_size 48, but its preprocessing makes 32" in refused(copied)


# From the hub, and through the command line


@pytest.fixture
def hub(chinese):
    with serving_hub() as served:
        for path in chinese[0].iterdir():
            served.files[f"/owner/chinese/{path.name}"] = path.read_bytes()
        served.files["/owner/chinese/pytorch_model.bin"] = b"the same again"
        served.files["/owner/pickled/config.json"] = (chinese[0] / "config.json").read_bytes()
        served.files["/owner/pickled/pytorch_model.bin"] = b"a pickle"
        yield served


def pull(hub, folder, name, **environment):
    """Pull in a process of its own: the hub's client reads the environment when imported."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    environment = kept | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "FOVEA_MODELS": str(folder / "models"),
        "no_proxy": "*",
        **environment,
    }
    command = [sys.executable, "-m", "fovea", "models", "pull", name]
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)


def test_a_model_of_another_family_comes_from_the_hub_with_all_it_needs(hub, tmp_path, chinese):
    run = pull(hub, tmp_path, "owner/chinese")
    assert run.returncode == 0, run.stderr
    name, folder = run.stdout.strip().split("\t")
    assert name == "owner/chinese"
    encoder = exact(Path(folder))
    assert_close_rows(encoder.encode_texts(TEXTS), chinese[1].texts(TEXTS))
    assert not (Path(folder) / "pytorch_model.bin").exists()
    hub.asked.clear()
    assert pull(hub, tmp_path, "owner/chinese", HF_HUB_OFFLINE="1").stdout == run.stdout
    assert hub.asked == []


def test_pickled_weights_are_not_even_fetched(hub, tmp_path):
    run = pull(hub, tmp_path, "owner/pickled")
    assert run.returncode == 1
    assert "has its weights in pytorch_model.bin" in run.stderr.strip().splitlines()[-1]
    assert not [path for path, _ in hub.asked if "resolve" in path and path.endswith(".bin")]


def test_a_chinese_query_works_from_end_to_end(chinese, tmp_path, monkeypatch):
    folder, own = chinese
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path / "models"))
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, picture in enumerate(PICTURES):
        picture.save(photos / f"{number}.png")
    library = ["--library", str(tmp_path / "library")]
    runner = CliRunner()
    exactly = ["--device", "cpu", "--dtype", "float32"]
    command = ["index", str(photos), "--model", str(folder), "--workers", "1", *exactly, *library]
    run = runner.invoke(cli, command)
    assert run.exit_code == 0, run.output
    assert "6 embedded by chinese" in run.output
    for query in ("红色自行车", "一只狗在海滩上"):
        run = runner.invoke(cli, ["search", query, "--json", *exactly, *library])
        assert run.exit_code == 0, run.output
        answer = json.loads(run.stdout)
        scores = own.texts([query])[0] @ np.concatenate([own.images([p]) for p in PICTURES]).T
        found = [(Path(hit["path"]).stem, hit["score"]) for hit in answer["hits"]]
        assert [name for name, _ in found] == [str(n) for n in np.argsort(-scores)]
        np.testing.assert_allclose([s for _, s in found], np.sort(scores)[::-1], atol=2e-3)
    run = runner.invoke(cli, ["models", "info", "--json", *library])
    said = json.loads(run.stdout)
    assert (said["family"], said["dim"], said["sha256"]) == (
        "chinese_clip", 24, hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    )  # fmt: skip
