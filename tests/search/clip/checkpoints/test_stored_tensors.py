"""Tensors are read as the format says; damaged files are refused; nothing stays mapped."""

import json
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fovea.search.clip.checkpoints.stored_tensors import TYPES, open_tensors
from fovea.search.clip.datasets.stored_array import StoredArray
from places import CHECKOUT


@pytest.fixture
def stored(tmp_path):
    """A file with a tensor of each type that torch can save, and one of none, one and no values."""
    rng = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, (3, 5), generator=rng).to(getattr(torch, name))
        for name, _, _ in TYPES.values()
        if name != "complex64"
    }
    tensors |= {"scale": torch.tensor(2.5), "none": torch.empty(0, 4), "one": torch.ones(1)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    return path, tensors


def test_each_tensor_is_read_as_it_was_saved(stored):
    path, tensors = stored
    with open_tensors(path) as file:
        assert set(file.found) == set(tensors)
        for name, tensor in tensors.items():
            assert file.found[name].shape == tuple(tensor.shape)
            read = file.tensor(name)
            assert read.dtype == tensor.dtype and torch.equal(read.double(), tensor.double())
            if TYPES[file.found[name].dtype][1] is None:
                with pytest.raises(ValueError, match="NumPy lacks"):
                    file.array(name)
            else:
                assert np.array_equal(file.array(name), tensor.numpy())


def written(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype="U8", shape=(2,), offsets=(0, 2)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"", b""),
        (b"[]", b""),
        (b"{", b""),
        (b"\xff\xff", b""),
        (b"[" * 100_000, b""),
        ({"a": []}, b""),
        ({"a": entry(offsets=(0, 2, 3))}, b"ab"),
        ({"a": entry(dtype="Q4")}, b"ab"),
        ({"a": entry(dtype=["U8"])}, b"ab"),
        ({"a": entry(shape=(3,))}, b"ab"),
        ({"a": entry(shape=(-1, -2))}, b"ab"),
        ({"a": entry(shape=(2.0,))}, b"ab"),
        ({"a": entry(shape=(1 << 62, 1 << 62))}, b"ab"),
        ({"a": entry(offsets=(2, 4))}, b"abcd"),
        ({"a": entry(), "b": entry(offsets=(1, 3))}, b"abc"),
        ({"a": entry()}, b"a"),
        ({"a": entry()}, b"abc"),
    ],
)
def test_a_file_that_is_not_sound_is_refused(tmp_path, header, data):
    path = written(tmp_path / "model.safetensors", header, data)
    with pytest.raises(ValueError), open_tensors(path):
        raise AssertionError("it was opened")


def test_a_file_that_is_cut_anywhere_is_refused(stored):
    path, tensors = stored
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError), open_tensors(path):
            raise AssertionError(f"{length} bytes were opened")


def test_a_file_that_is_cut_after_it_was_opened_is_refused(stored):
    path, tensors = stored
    with open_tensors(path) as file:
        with path.open("r+b") as other:
            other.truncate(path.stat().st_size - 1)
        last = max(file.found, key=lambda name: file.found[name].start + file.found[name].size)
        with pytest.raises(ValueError, match="it ends within"):
            file.tensor(last)


def test_a_loaded_model_does_not_change_with_its_file(tmp_path):
    """In a process of its own: where weights are mapped, it is ended by a signal."""
    program = f"""
        import shutil, sys
        from pathlib import Path
        from fovea.search.clip.checkpoints.checkpoint import load_clip
        from fovea.search.clip.encoders.numpy_text import NumpyTextEncoder
        from fovea.data import bundled_model

        folder = Path({str(tmp_path / "model")!r})
        shutil.copytree(bundled_model(), folder)
        words, clip = NumpyTextEncoder.open(folder), load_clip(folder)
        before = words.encode_texts(["a dog"]), clip.state_dict()
        sums = {{name: float(part.double().sum()) for name, part in before[1].items()}}
        with (folder / "model.safetensors").open("r+b") as file:
            file.truncate(0)
            file.write(bytes(1000))
        assert (words.encode_texts(["a dog"]) == before[0]).all()
        assert sums == {{n: float(part.double().sum()) for n, part in clip.state_dict().items()}}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=CHECKOUT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


# Arrays


def test_parts_of_a_stored_array_are_read_when_they_are_asked_for(tmp_path):
    values = np.arange(2 * 3 * 4, dtype=np.float16).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", values)
    stored = StoredArray.open(tmp_path / "a.npy")
    assert (stored.shape, stored.dtype, len(stored), stored.ndim) == ((2, 3, 4), np.float16, 2, 3)
    assert np.array_equal(stored, values) and np.array_equal(stored[1], values[1])
    assert np.array_equal(stored[-1, 2], values[-1, 2]) and np.asarray(stored[0, 0, 3]) == 3
    assert [np.asarray(part).tolist() for part in stored] == values.tolist()
    assert np.asarray(stored[1, 1], "f4").dtype == np.float32
    with pytest.raises(IndexError):
        stored[2]


def test_a_stored_array_that_is_cut_is_an_error(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((100, 100)))
    stored = StoredArray.open(path)
    with path.open("r+b") as file:
        file.truncate(5000)
    assert np.asarray(stored[0]).sum() == 0
    with pytest.raises(OSError, match="has become shorter"):
        np.asarray(stored[99])
    with pytest.raises(ValueError, match="not a whole array"):
        StoredArray.open(path)


def test_only_plain_arrays_are_opened(tmp_path):
    path = tmp_path / "a.npy"
    for values in (np.array([{}], object), np.asfortranarray(np.ones((2, 3)))):
        np.save(path, values, allow_pickle=True)
        with pytest.raises(ValueError):
            StoredArray.open(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError):
        StoredArray.open(path)
