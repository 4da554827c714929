"""Encoders that measure while they embed, and what they do with what was measured."""

import errno
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch.nn.functional import normalize

from fovea.search.clip.checkpoints.checkpoint import load_clip, weights_sha256
from fovea.search.clip.config import ClipConfig, VisionConfig
from fovea.search.clip.encoders import base
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.clip.engines import adapting, choose, faithful
from fovea.search.clip.engines.adapting import adapting as adapting_load
from fovea.search.clip.engines.openvino_runtime import OpenVinoTower, is_installed
from fovea.search.clip.engines.record import Kept, Record
from fovea.search.clip.errors import ModelError
from places import CHECKOUT
from small_clips import TEXT, write_model

TINY = ClipConfig(16, VisionConfig(32, 1, 32, heads=2, patch_size=16), TEXT)
COUNT = choose.LEAST + 8

needs_extra = pytest.mark.skipif(
    not is_installed(), reason="the extra openvino is not installed: openvino, nncf"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tiny")
    write_model(place, TINY)
    return place


@pytest.fixture(scope="module")
def pixels():
    """Pictures of four fields and some noise each, uint8 (n, 32, 32, 3)."""
    rng = np.random.default_rng(0)
    fields = rng.integers(0, 226, (COUNT, 2, 2, 3)).repeat(16, 1).repeat(16, 2)
    return (fields + rng.integers(0, 30, fields.shape)).astype(np.uint8)


@pytest.fixture(autouse=True)
def warnings_only(caplog):
    """Log as the library does by itself, whatever another test has asked for."""
    caplog.set_level(logging.WARNING, logger="fovea")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Measure after any time, and find int8 the fastest and torch the slowest.

    The neighbours of random pictures by random weights are nearly as near as the next ones.
    """
    monkeypatch.setattr(faithful, "RECALL", 0.8)
    monkeypatch.setattr(adapting, "AFTER_S", 0.0)
    monkeypatch.setattr(adapting, "AFTER_TORCH_S", 0.0)
    speeds = {"torch float32": 10.0, "torch bfloat16": 8.0, "openvino float32": 12.0}
    speeds |= {"openvino int8": 30.0}
    monkeypatch.setattr(
        choose, "timed", lambda towers, pixels: {name: speeds[name] for name in towers}
    )


@pytest.fixture
def without_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name)
    )


@pytest.fixture
def with_units(monkeypatch):
    """A CPU whose instructions suggest bfloat16."""
    monkeypatch.setattr(base, "multiplies_bfloat16", lambda: True)


@pytest.fixture
def without_units(monkeypatch):
    monkeypatch.setattr(base, "multiplies_bfloat16", lambda: False)


def raising(error):
    def fail(*_):
        raise error

    return fail


def kept_in(place, folder):
    return Kept(place, weights_sha256(folder / "model.safetensors"))


@torch.no_grad()
def exact(folder, pixels):
    """Unit rows (n, d) by the reference model, in float32."""
    model = load_clip(folder)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (model.config.mean, model.config.std))
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    return normalize(model.encode_image(x), dim=-1).numpy()


def indexed(folder, kept, pixels, dtype="auto"):
    """An encoder that has embedded pictures as indexing does, and its embeddings."""
    encoder = adapting_load(lambda: load_encoder(folder, kept=kept, dtype=dtype))()
    return encoder, np.concatenate([encoder.encode_pixels(part) for part in np.split(pixels, 4)])


@pytest.fixture(scope="module")
def made(folder, pixels, tmp_path_factory):
    """The folder of a measurement that has chosen int8, and left the root logger as it was."""
    if not is_installed():
        pytest.skip("the extra openvino is not installed: openvino, nncf")
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapting, "AFTER_S", 0.0)
        patch.setattr(faithful, "RECALL", 0.8)
        patch.setattr(choose, "timed", lambda towers, _: {x: 1 + 2 * ("int8" in x) for x in towers})
        root = logging.getLogger()
        before = (root.level, [*root.filters], [*root.handlers])
        indexed(folder, kept_in(place, folder), pixels)
        assert (root.level, root.filters, root.handlers) == before
    return place


@pytest.fixture
def kept(made, folder, tmp_path):
    shutil.copytree(made, tmp_path / "kept")
    return kept_in(tmp_path / "kept", folder)


@needs_extra
def test_int8_is_measured_kept_and_near_the_reference(made, folder, pixels):
    kept = kept_in(made, folder)
    record = kept.read()
    assert (record.engine, record.precision) == ("openvino", "int8")
    assert record.int8.is_faithful and record.int8.pictures == COUNT - choose.CALIBRATION
    encoder = load_encoder(folder, kept=kept)
    rows = encoder.encode_pixels(pixels)
    cosines = (rows * exact(folder, pixels)).sum(axis=1)
    assert cosines.min() > 0.97
    assert cosines.min() < 0.999999, "these are not the embeddings of float32"
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)


@needs_extra
def test_what_was_measured_is_used_by_every_encoder_and_not_measured_again(
    kept, folder, pixels, monkeypatch
):
    monkeypatch.setattr(adapting, "measured", None)  # a second measurement would fail
    encoder, rows = indexed(folder, kept, pixels)
    assert isinstance(encoder._chooser.tower(), OpenVinoTower)
    asked = load_encoder(folder, kept=kept, dtype="int8").encode_pixels(pixels)
    assert np.allclose(asked, rows, atol=1e-5)
    plain = load_encoder(folder, kept=kept, dtype="float32").encode_pixels(pixels)
    assert np.allclose(plain, exact(folder, pixels), atol=1e-5)
    assert encoder.encode_pixels(pixels[:0]).shape == (0, 16)
    with pytest.raises(ValueError, match="not uint8"):
        encoder.encode_pixels(pixels.astype(np.float32))


@needs_extra
def test_other_weights_are_measured_anew(kept, pixels, tmp_path):
    write_model(tmp_path / "other", TINY, seed=1)
    assert kept_in(kept.folder, tmp_path / "other").read() is None
    assert kept.read() is not None


@needs_extra
def test_a_tower_that_was_tampered_with_is_made_again(kept, folder, pixels, caplog):
    path = kept.tower_path("int8")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    encoder, rows = indexed(folder, kept, pixels)
    assert sum("damaged" in line for line in caplog.messages) == 1
    record = kept.read()
    assert kept.tower(record, "int8") is not None
    assert (rows * exact(folder, pixels)).sum(axis=1).min() > 0.97


@needs_extra
def test_float32_by_openvino_is_used_where_it_is_faster(
    folder, pixels, tmp_path, monkeypatch, without_units
):
    speeds = {"torch float32": 10.0, "openvino float32": 12.0, "openvino int8": 12.0}
    monkeypatch.setattr(choose, "timed", lambda towers, _: {name: speeds[name] for name in towers})
    kept = kept_in(tmp_path / "kept", folder)
    indexed(folder, kept, pixels)
    assert (kept.read().engine, kept.read().precision) == ("openvino", "float32")
    for dtype in ("auto", "float32"):
        encoder = load_encoder(folder, kept=kept, dtype=dtype)
        assert isinstance(encoder._chooser.tower(), OpenVinoTower)
        assert np.allclose(encoder.encode_pixels(pixels), exact(folder, pixels), atol=1e-5)
    asked = load_encoder(folder, kept=kept, dtype="int8")  # faithful, though not faster
    assert not np.allclose(asked.encode_pixels(pixels), exact(folder, pixels), atol=1e-5)


def write_rough(place):
    """Write a model whose hidden features are 1000 and a little: steps of int8 hide the little.

    QuickGELU leaves such values as they are, and the next layer subtracts the 1000 again.
    """
    state = {name: tensor.clone() for name, tensor in write_model(place, TINY).state_dict().items()}
    mlp = "visual.transformer.resblocks.0.mlp"
    state[f"{mlp}.c_fc.bias"] += 1000
    state[f"{mlp}.c_proj.bias"] -= 1000 * state[f"{mlp}.c_proj.weight"].sum(dim=1)
    save_file(state, place / "model.safetensors")


@needs_extra
def test_a_tower_that_int8_spoils_stays_in_float(
    tmp_path, pixels, caplog, monkeypatch, without_units
):
    monkeypatch.setattr(choose, "methods", lambda model: ["transformer"])
    write_rough(tmp_path / "rough")
    kept = kept_in(tmp_path / "kept", tmp_path / "rough")
    with caplog.at_level(logging.INFO, logger="fovea"):
        _, rows = indexed(tmp_path / "rough", kept, pixels)
    [line] = [line for line in caplog.messages if "int8 is not faithful" in line]
    record = kept.read()
    assert record.precision != "int8" and not record.int8.is_faithful
    assert "int8" not in record.towers
    assert (rows * exact(tmp_path / "rough", pixels)).sum(axis=1).min() > 0.999
    with pytest.raises(ModelError, match="rough is not faithful in int8 on this CPU .*; use auto"):
        load_encoder(tmp_path / "rough", kept=kept, dtype="int8")
    monkeypatch.setattr(adapting, "measured", None)  # it is not tried again
    indexed(tmp_path / "rough", kept, pixels)


@needs_extra
def test_a_tower_that_openvino_cannot_take_is_left_to_torch(
    folder, pixels, tmp_path, monkeypatch, without_units
):
    unknown = RuntimeError("no such operator\n  somewhere")
    monkeypatch.setattr(choose, "converted", raising(unknown))
    kept = kept_in(tmp_path / "kept", folder)
    _, rows = indexed(folder, kept, pixels)
    assert kept.read().described() == "float32 (torch); no int8: no such operator"
    assert np.allclose(rows, exact(folder, pixels), atol=1e-5)


@needs_extra
def test_without_a_measurement_int8_says_how_to_get_it(folder, pixels, tmp_path):
    encoder = load_encoder(folder, kept=kept_in(tmp_path, folder), dtype="int8")
    assert encoder.encode_texts(["a dog"]).shape == (1, 16)
    with pytest.raises(ModelError, match="fovea index --dtype int8"):
        encoder.encode_pixels(pixels)


@pytest.mark.usefixtures("without_extra")
def test_without_the_extra_int8_says_what_to_install(folder, tmp_path):
    with pytest.raises(ModelError, match=r"int8 needs OpenVINO and NNCF: .*'fovea\[openvino\]'"):
        load_encoder(folder, kept=kept_in(tmp_path, folder), dtype="int8")


def test_int8_is_for_the_cpu(folder, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="int8 is for models on the CPU"):
        load_encoder(folder, dtype="int8")  # nowhere to keep it


@pytest.mark.usefixtures("without_extra", "without_units")
def test_without_the_extra_and_the_units_there_is_nothing_to_measure(folder, pixels, tmp_path):
    kept = kept_in(tmp_path / "kept", folder)
    encoder, rows = indexed(folder, kept, pixels)
    assert encoder.dtype == torch.float32 and not kept.folder.exists()
    assert np.allclose(rows, exact(folder, pixels), atol=1e-5)


@pytest.mark.usefixtures("without_extra", "with_units")
def test_float32_is_taken_where_it_is_faster_than_bfloat16(folder, pixels, tmp_path):
    kept = kept_in(tmp_path / "kept", folder)
    encoder, _ = indexed(folder, kept, pixels)
    assert encoder.dtype == torch.bfloat16, "as its instructions suggest"
    assert np.allclose(encoder.encode_pixels(pixels), exact(folder, pixels), atol=1e-5)
    record = kept.read()
    assert (record.engine, record.precision, record.towers) == ("torch", "float32", {})
    assert load_encoder(folder, kept=kept).dtype == torch.float32
    assert load_encoder(folder, kept=kept, dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.usefixtures("without_extra", "with_units")
@pytest.mark.parametrize("reason", ["few", "short", "not indexing"])
def test_a_short_run_measures_nothing(folder, pixels, tmp_path, monkeypatch, reason):
    kept = kept_in(tmp_path / "kept", folder)
    if reason == "short":
        monkeypatch.setattr(adapting, "AFTER_TORCH_S", 1e6)
    if reason == "not indexing":
        load_encoder(folder, kept=kept).encode_pixels(pixels)
    else:
        indexed(folder, kept, pixels[: choose.LEAST - 4] if reason == "few" else pixels)
    assert not kept.folder.exists()


@pytest.mark.usefixtures("without_extra", "with_units")
def test_a_full_disk_costs_the_record_and_nothing_else(
    folder, pixels, tmp_path, monkeypatch, caplog
):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("fovea.search.clip.disk.os.replace", raising(full))
    kept = kept_in(tmp_path / "kept", folder)
    _, rows = indexed(folder, kept, pixels)
    assert len(rows) == COUNT and kept.read() is None
    [line] = caplog.messages
    assert "is not kept" in line and "is full" in line and "make room" in line
    assert not list(kept.folder.glob("*.part"))


@pytest.mark.usefixtures("without_extra", "with_units")
def test_a_measurement_that_fails_costs_nothing_else(folder, pixels, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(adapting, "measured", raising(MemoryError("cannot allocate")))
    _, rows = indexed(folder, kept_in(tmp_path / "kept", folder), pixels)
    [line] = caplog.messages
    assert line.endswith("could not be measured: cannot allocate") and len(rows) == COUNT


@pytest.mark.usefixtures("without_extra", "with_units")
def test_of_two_processes_one_measures(folder, pixels, tmp_path, caplog):
    kept = kept_in(tmp_path / "kept", folder)
    kept.folder.mkdir()
    with caplog.at_level(logging.INFO, logger="fovea"), FileLock(kept.lock_path):
        _, rows = indexed(folder, kept, pixels)
    assert caplog.messages == [f"another process measures how {folder.stem} embeds fastest"]
    assert len(rows) == COUNT and kept.read() is None


def test_encoders_of_other_kinds_are_left_alone(encoder):
    assert adapting_load(lambda: encoder)() is encoder


@needs_extra
def test_the_extra_sends_nothing_and_writes_nothing_at_home(tmp_path):
    program = (
        "import sys, threading\n"
        "asked = []\n"
        "sys.addaudithook(lambda event, told: asked.append((event, told))"
        " if event.startswith('socket.') else None)\n"
        "from fovea.search.clip.engines.openvino_runtime import nncf, openvino\n"
        "openvino(), nncf()\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "import json; print(json.dumps([str(one) for one in asked]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=CHECKOUT,
        env=os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [] and done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_extra", "with_units")
def test_a_measurement_that_killed_its_process_is_not_repeated(folder, pixels, tmp_path, caplog):
    kept = kept_in(tmp_path / "kept", folder)
    kept.folder.mkdir()
    kept.begin()  # as a process leaves it that the system has ended
    kept.begin()
    _, rows = indexed(folder, kept, pixels)
    [line] = caplog.messages
    assert "were killed" in line and len(rows) == COUNT
    assert kept.read().described() == f"bfloat16 (torch); no int8: {adapting.KILLED}"
    indexed(folder, kept, pixels)
    assert len(caplog.messages) == 1, "said once"


@pytest.mark.usefixtures("without_extra", "with_units")
def test_a_process_that_was_killed_once_may_have_been_killed_for_any_reason(
    folder, pixels, tmp_path
):
    kept = kept_in(tmp_path / "kept", folder)
    kept.folder.mkdir()
    kept.begin()
    place, prefix = kept.scratch
    left = place / f"{prefix}left.part"
    left.mkdir()
    (left / "tower.bin").write_bytes(b"many")
    indexed(folder, kept, pixels)
    assert kept.read().precision == "float32"
    assert {file.suffix for file in kept.folder.iterdir()} == {".json", ".lock"}


@pytest.mark.usefixtures("without_extra", "with_units")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_counts_as_no_kill(folder, pixels, tmp_path, monkeypatch, error):
    kept = kept_in(tmp_path / "kept", folder)
    with monkeypatch.context() as patch:
        patch.setattr(adapting, "measured", raising(error))
        with pytest.raises(error):
            indexed(folder, kept, pixels)
    assert not any(path.exists() for path in kept.trying_paths)
    indexed(folder, kept, pixels)
    assert kept.read() is not None


@pytest.mark.usefixtures("without_extra", "with_units")
@pytest.mark.parametrize("place", ["pixels", "writing", "lock", "folder"])
def test_nothing_that_fails_around_a_measurement_costs_a_picture(
    folder, pixels, tmp_path, monkeypatch, caplog, place
):
    def fail(*_, **__):
        raise (NotImplementedError if place == "lock" else MemoryError)("not to be had")

    kept = kept_in(tmp_path / "kept", folder)
    if place == "folder":
        kept.folder.write_text("a file")
    encoder = adapting_load(lambda: load_encoder(folder, kept=kept))()
    wanted = encoder.encode_pixels(pixels[:8])
    with monkeypatch.context() as patch:
        if place == "pixels":
            patch.setattr(adapting.np, "concatenate", fail)
        elif place == "writing":
            patch.setattr(Kept, "write", fail)
        elif place == "lock":
            patch.setattr(adapting, "FileLock", fail)
        rows = encoder.encode_pixels(pixels)
    assert len(rows) == COUNT and len(caplog.messages) == 1
    assert (rows[:8] * wanted).sum(axis=1).min() > 0.999


@pytest.mark.usefixtures("without_extra", "with_units")
def test_an_encoder_can_index_again_after_a_measurement_that_failed(
    folder, pixels, tmp_path, monkeypatch
):
    monkeypatch.setattr(adapting, "MOST", choose.LEAST)
    kept = kept_in(tmp_path / "kept", folder)
    with monkeypatch.context() as patch:
        patch.setattr(adapting, "measured", raising(MemoryError))
        encoder, _ = indexed(folder, kept, pixels)
    assert kept.read() is None
    encoder.adapt()
    assert len(encoder.encode_pixels(pixels)) == COUNT
    assert kept.read() is not None


@needs_extra
def test_a_broken_installation_is_not_remembered(
    folder, pixels, tmp_path, monkeypatch, caplog, without_units
):
    broken = ModelError("openvino cannot be imported (no libtbb)")
    monkeypatch.setattr(choose, "converted", raising(broken))
    kept = kept_in(tmp_path / "kept", folder)
    _, rows = indexed(folder, kept, pixels)
    assert np.allclose(rows, exact(folder, pixels), atol=1e-5)
    assert sum("no libtbb" in line for line in caplog.messages) == 1
    assert kept.read() is None and not any(path.exists() for path in kept.trying_paths)


@needs_extra
@pytest.mark.parametrize("dtype", ["auto", "int8"])
def test_a_tower_that_fails_while_it_embeds_costs_no_picture(
    kept, folder, pixels, monkeypatch, caplog, without_units, dtype
):
    encoder = load_encoder(folder, kept=kept, dtype=dtype)
    monkeypatch.setattr(OpenVinoTower, "__call__", raising(RuntimeError("cannot execute")))
    for _ in range(2):
        assert np.allclose(encoder.encode_pixels(pixels), exact(folder, pixels), atol=1e-5)
    [line] = caplog.messages
    assert line.endswith("(cannot execute); torch is used")


@needs_extra
def test_int8_is_tried_again_where_it_only_failed(folder, pixels, tmp_path):
    kept = kept_in(tmp_path / "kept", folder)
    failed = Record("torch", "float32", "", {}, None, "a moment's trouble")
    kept.write(failed, {})
    with pytest.raises(ModelError, match="no int8 tower on this machine yet"):
        load_encoder(folder, kept=kept, dtype="int8").encode_pixels(pixels)
    encoder = load_encoder(folder, kept=kept, dtype="int8")
    encoder.adapt()
    assert encoder._chooser._pixels == [], "it keeps pictures to measure with"


@needs_extra
def test_int8_that_cannot_be_loaded_says_so(kept, folder, pixels, monkeypatch, caplog):
    monkeypatch.setattr(adapting, "loaded", raising(RuntimeError("no plugin")))
    with pytest.raises(ModelError, match="OpenVINO cannot load .*no plugin.*use auto"):
        load_encoder(folder, kept=kept, dtype="int8")
    assert caplog.messages == []
    rows = load_encoder(folder, kept=kept).encode_pixels(pixels)
    assert (rows * exact(folder, pixels)).sum(axis=1).min() > 0.99
    [line] = caplog.messages
    assert line.endswith("torch is used")
