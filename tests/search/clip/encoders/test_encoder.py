"""The encoder for inference against the reference model, in each precision."""

import json
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from closeness import assert_close_rows
from fovea.search.clip.checkpoints.checkpoint import Checkpoint, load_clip, weights_sha256
from fovea.search.clip.config import ClipConfig, TextConfig, VisionConfig
from fovea.search.clip.encoders import base as encoder_module
from fovea.search.clip.encoders import kernels
from fovea.search.clip.encoders.base import (
    keep_allocations,
    multiplies_bfloat16,
    pick_device,
    pick_dtype,
)
from fovea.search.clip.encoders.clip import ClipEncoder
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.clip.errors import ModelError
from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.clip.training.learner import training_dtype
from places import CHECKOUT
from small_clips import RESNET, TEXT, VIT, write_model

MODELS = {
    "vit": VIT,
    "vit-gelu": ClipConfig(48, VIT.vision, TEXT, "gelu", (0.5, 0.4, 0.3), (0.3, 0.2, 0.1)),
    "vit-odd": ClipConfig(20, VisionConfig(50, 1, 96, heads=3, patch_size=14), TEXT),
    "resnet": RESNET,
    "resnet-deep": ClipConfig(33, VisionConfig(64, (2, 1, 2, 2), 24, heads=12), TEXT, "gelu"),
}
TEXTS = ["the dog", "", "a", "dogs do the dog thing, oddly", "the " * 100, "犬 🐕"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    for name, config in MODELS.items():
        write_model(place / name, config)
    return place


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def packing(request, monkeypatch):
    """Both ways of computing: oneDNN's packed products where they work, and torch's own."""
    if not request.param:
        monkeypatch.setattr(kernels.Target, "packs", False)


def random_pixels(encoder, n=5):
    """Pictures of a few coloured fields each, under some noise."""
    size, rng = encoder.preprocess.size, np.random.default_rng(1)
    fields = rng.integers(0, 226, (n, 3, 3, 3)).repeat(-(-size // 3), 1).repeat(-(-size // 3), 2)
    fields = fields[:, :size, :size]
    return (fields + rng.integers(0, 30, fields.shape)).astype(np.uint8)


@torch.no_grad()
def reference_images(folder, encoder, pixels):
    values = torch.from_numpy(encoder.preprocess.normalise(pixels))
    return normalize(load_clip(folder).encode_image(values), dim=-1).numpy()


@torch.no_grad()
def reference_texts(folder, texts):
    tokens = Tokenizer.from_folder(folder).tokenize(texts, TEXT.context_length)
    model = load_clip(folder)
    return normalize(model.encode_text(torch.from_numpy(tokens)), dim=-1).numpy()


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("name", MODELS)
def test_float32_equals_the_reference_model(folders, name):
    encoder = load_encoder(folders / name, device="cpu", dtype="float32")
    pixels = random_pixels(encoder)
    images, texts = encoder.encode_pixels(pixels), encoder.encode_texts(TEXTS)
    assert images.dtype == texts.dtype == np.float32
    assert images.shape == (5, encoder.dim) and texts.shape == (6, encoder.dim)
    assert_close_rows(images, reference_images(folders / name, encoder, pixels))
    assert_close_rows(texts, reference_texts(folders / name, TEXTS))
    assert np.ptp(images, axis=0).max() > 0.01  # the pictures are told apart


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_points_the_same_way(folders, name):
    encoder = load_encoder(folders / name, device="cpu", dtype="bfloat16")
    pixels = random_pixels(encoder)
    images, texts = encoder.encode_pixels(pixels), encoder.encode_texts(TEXTS)
    assert_close_rows(images, reference_images(folders / name, encoder, pixels), "bfloat16")
    assert_close_rows(texts, reference_texts(folders / name, TEXTS), "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_text_is_embedded_alone_as_among_others(folders, dtype):
    encoder = load_encoder(folders / "vit", device="cpu", dtype=dtype)
    together = encoder.encode_texts(TEXTS)
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    assert_close_rows(alone, together, dtype)


def test_a_picture_is_embedded_alone_as_in_a_batch(folders):
    encoder = load_encoder(folders / "vit", device="cpu", dtype="float32")
    pixels = random_pixels(encoder, 7)
    whole = encoder.encode_pixels(pixels)
    alone = np.concatenate([encoder.encode_pixels(one[None]) for one in pixels])
    assert_close_rows(alone, whole)


def test_more_pictures_than_a_batch_keep_their_order(folders):
    encoder = load_encoder(folders / "vit", device="cpu", dtype="float32")
    pixels = random_pixels(encoder, 5)
    many = np.arange(encoder.batch_size + 3) % 5
    assert_close_rows(encoder.encode_pixels(pixels[many]), encoder.encode_pixels(pixels)[many])


def test_images_go_through_the_models_preprocessing(folders):
    encoder = load_encoder(folders / "vit", device="cpu", dtype="float32")
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (90, 130, 3), np.uint8))
    pixels = encoder.preprocess.pixels(picture)[None]
    assert encoder.preprocess.size == 64
    assert_close_rows(encoder.encode_images([picture]), encoder.encode_pixels(pixels))


def test_nothing_gives_no_rows(folders):
    encoder = load_encoder(folders / "vit", device="cpu")
    assert encoder.encode_images([]).shape == (0, 48)
    assert encoder.encode_texts([]).shape == (0, 48)
    assert encoder.encode_pixels(np.empty((0, 64, 64, 3), np.uint8)).shape == (0, 48)


@pytest.mark.parametrize(
    "pixels", [np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 64, 64, 3), np.float32)]
)
def test_pixels_of_another_shape_or_type_are_refused(folders, pixels):
    with pytest.raises(ValueError, match="not uint8"):
        load_encoder(folders / "vit", device="cpu").encode_pixels(pixels)


def test_read_only_and_strided_pixels_are_taken(folders):
    encoder = load_encoder(folders / "vit", device="cpu", dtype="float32")
    pixels = random_pixels(encoder, 6)
    whole = encoder.encode_pixels(pixels)
    pixels.flags.writeable = False
    assert_close_rows(encoder.encode_pixels(pixels[::2]), whole[::2])


def test_only_the_needed_tower_is_loaded(folders, monkeypatch):
    read, plain = [], Checkpoint.state

    def state(checkpoint, towers):
        read.extend(towers)
        return plain(checkpoint, towers)

    monkeypatch.setattr(Checkpoint, "state", state)
    load_encoder(folders / "vit", device="cpu").encode_texts(["a"])
    assert read == ["text"]
    encoder = load_encoder(folders / "resnet", device="cpu")
    encoder.encode_pixels(random_pixels(encoder, 1))
    assert read == ["text", "image"]


def test_an_encoder_says_what_it_is(folders):
    encoder = load_encoder(folders / "vit", device="cpu", dtype="float32")
    assert isinstance(encoder, ClipEncoder)
    assert (encoder.name, encoder.dim, encoder.dtype) == ("vit", 48, torch.float32)
    assert load_encoder(folders / "vit", name="mine", device="cpu").name == "mine"
    assert encoder.identity == weights_sha256(folders / "vit" / "model.safetensors")
    assert encoder.logit_scale == pytest.approx(1 / 0.07)


def test_threads_share_an_encoder(folders):
    encoder = load_encoder(folders / "vit", device="cpu", dtype="float32")
    want = load_encoder(folders / "vit", device="cpu", dtype="float32").encode_texts(TEXTS)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(encoder.encode_texts(TEXTS))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for rows in found:
        assert_close_rows(rows, want)


def test_a_vocabulary_of_another_model_is_refused(tmp_path):
    write_model(tmp_path, ClipConfig(48, VIT.vision, TextConfig(16, 600, 64, 1, 2)))
    with pytest.raises(ModelError, match="517 entries but the model has 600"):
        load_encoder(tmp_path, device="cpu").encode_texts(["a"])


def test_pictures_need_no_vocabulary(tmp_path):
    write_model(tmp_path)
    (tmp_path / "bpe.txt.gz").unlink()
    encoder = load_encoder(tmp_path, device="cpu")
    assert encoder.encode_pixels(random_pixels(encoder, 1)).shape == (1, 48)
    with pytest.raises(ModelError, match="no vocabulary"):
        encoder.encode_texts(["a"])


def test_half_precision_weights_are_read(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(folders / "vit" / "model.safetensors")
    save_file({n: t.half() for n, t in state.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(VIT.to_dict()))
    half = load_encoder(tmp_path, device="cpu", dtype="float32")
    whole = load_encoder(folders / "vit", device="cpu", dtype="float32")
    pixels = random_pixels(whole)
    assert_close_rows(half.encode_pixels(pixels), whole.encode_pixels(pixels), "float16")


def test_a_device_that_is_not_here_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ModelError, match="^cuda is not available here; use cpu$"):
        pick_device("cuda")
    with pytest.raises(ModelError, match="^cuda:3 is not available here; use cpu$"):
        pick_device("cuda:3")


@pytest.mark.parametrize("name", ["gpu", "cuda:one", "", "tpu:0"])
def test_a_device_that_does_not_exist_is_named(name):
    with pytest.raises(ModelError, match="choose auto, cpu, cuda, cuda:N or mps"):
        pick_device(name)


def test_the_best_device_is_chosen(monkeypatch):
    for cuda, mps, want in [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda here=cuda: here)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda here=mps: here)
        assert pick_device("auto").type == want


def detect(monkeypatch, *, avx512=False, amx=False, onednn=True):
    """Let torch find these units for bfloat16, as on a processor of x86."""
    monkeypatch.setattr(encoder_module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    supported = lambda: onednn  # noqa: E731
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", supported, raising=False)
    for name, found in (("_is_avx512_bf16_supported", avx512), ("_is_amx_tile_supported", amx)):
        monkeypatch.setattr(torch.cpu, name, lambda found=found: found, raising=False)


@pytest.mark.parametrize(
    ("units", "multiplies"),
    [
        ({"avx512": True}, True),
        ({"amx": True}, True),
        ({}, False),  # oneDNN would emulate it
        ({"avx512": True, "amx": True, "onednn": False}, False),
    ],
)
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_the_processor_decides_on_bfloat16(folders, monkeypatch, units, multiplies, name):
    detect(monkeypatch, **units)
    assert multiplies_bfloat16() == multiplies
    encoder = load_encoder(folders / name, device="cpu")
    assert encoder.dtype == training_dtype("auto", torch.device("cpu"))
    assert encoder.dtype == (torch.bfloat16 if multiplies else torch.float32)
    pixels, dtype = random_pixels(encoder), str(encoder.dtype).removeprefix("torch.")
    want = reference_images(folders / name, encoder, pixels)
    assert_close_rows(encoder.encode_pixels(pixels), want, dtype)
    assert_close_rows(encoder.encode_texts(TEXTS), reference_texts(folders / name, TEXTS), dtype)


def test_a_precision_may_be_asked_for(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    detect(monkeypatch)
    assert pick_dtype("bfloat16", cpu) == torch.bfloat16
    assert pick_dtype("auto", gpu) == torch.float16
    assert pick_dtype("float32", gpu) == torch.float32
    with pytest.raises(ModelError, match="float16 is for GPUs"):
        pick_dtype("float16", cpu)
    with pytest.raises(ModelError, match="no dtype 'int8'"):
        pick_dtype("int8", cpu)


class WrongOperators:
    """oneDNN's operators, of which one adds 1 to what it should return."""

    def __init__(self, right):
        self._right = right

    def __getattr__(self, name):
        right = getattr(self._right, name)
        return (lambda *values: right(*values) + 1) if name == "_convolution_pointwise" else right


@pytest.mark.parametrize("operators", [object(), WrongOperators(torch.ops.mkldnn)])
def test_operators_that_are_gone_or_wrong_are_not_used(folders, monkeypatch, operators):
    kernels.onednn_agrees.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    assert not kernels.onednn_agrees(torch.float32)
    encoder = load_encoder(folders / "resnet", device="cpu", dtype="float32")
    pixels = random_pixels(encoder)
    want = reference_images(folders / "resnet", encoder, pixels)
    assert_close_rows(encoder.encode_pixels(pixels), want)
    kernels.onednn_agrees.cache_clear()


def test_allocations_are_kept_where_the_c_library_is_glibc():
    assert keep_allocations() == (platform.libc_ver()[0] == "glibc")


def test_a_search_imports_little(folders):
    """A cold search must not pay for compilers, training or transformers."""
    code = (
        "import sys; from pathlib import Path\n"
        "from fovea.search.clip.encoders.load import load_encoder\n"
        "load_encoder(Path(sys.argv[1]), device='cpu').encode_texts(['the dog'])\n"
        "heavy = {'torch._dynamo', 'transformers', 'sympy', 'torch._inductor', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(folders / "vit")],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"
