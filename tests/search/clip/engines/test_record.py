"""What is kept of a measurement, and that nothing damaged or outdated is used."""

import json
import os
from dataclasses import replace

import pytest

from fovea.search.clip.engines import quantise
from fovea.search.clip.engines import record as record_module
from fovea.search.clip.engines.choose import digest
from fovea.search.clip.engines.faithful import Agreement
from fovea.search.clip.engines.record import Kept, Record, cpu_features, forget
from fovea.search.clip.errors import ModelError

FINE, POOR = Agreement(0.998, 0.99, 0.97, 256), Agreement(0.998, 0.9, 0.97, 256)
SPEEDS = {"torch float32": 10.0, "openvino float32": 13.0, "openvino int8": 31.0}
INT8 = Record("openvino", "int8", "transformer", SPEEDS, FINE, seconds=12.5)


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path / "engines", "ab" * 32)


def write(kept, record=INT8, data=b"a tower"):
    record = replace(record, towers={"int8": digest(data)})
    kept.write(record, {"int8": data})
    return record


def test_a_record_comes_back_as_it_was(kept):
    assert kept.read() is None
    record = write(kept)
    assert kept.read() == record
    assert kept.tower(record, "int8") == b"a tower"
    assert sorted(file.suffix for file in kept.folder.iterdir()) == [".json", ".tower"]


def test_its_name_changes_with_all_that_counts(kept, monkeypatch):
    names = {kept.name, Kept(kept.folder, "cd" * 32).name}
    with monkeypatch.context() as patch:
        patch.setattr(record_module, "versions", lambda *names: {"torch": "9.9"})
        names.add(kept.name)
    with monkeypatch.context() as patch:
        patch.setattr(record_module, "FORMAT", 0)
        names.add(kept.name)
    with monkeypatch.context() as patch:
        patch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
        names.add(kept.name)
    with monkeypatch.context() as patch:
        patch.setattr(record_module, "cpu_features", lambda: {"model": "another"})
        names.add(kept.name)
    assert len(names) == 6


def test_what_other_versions_made_goes_when_it_is_made_again(kept, monkeypatch):
    other = Kept(kept.folder, "cd" * 32)
    write(other)
    with monkeypatch.context() as patch:
        patch.setattr(record_module, "FORMAT", 0)
        write(kept)
    write(kept)
    assert len(list(kept.folder.iterdir())) == 4  # two of each model
    assert kept.read() and other.read()


DAMAGE = {
    "torn": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "another engine": lambda text: text.replace('"openvino"', '"os.system"'),
    "another precision": lambda text: text.replace('"int8",', '"int1",', 1),
    "not faithful": lambda text: text.replace("0.99,", "0.9,"),
    "no tower": lambda text: json.dumps(json.loads(text) | {"towers": {}}),
    "nothing for speeds": lambda text: json.dumps(json.loads(text) | {"speeds": None}),
    "a number past all": lambda text: text.replace("12.5", "1" + "0" * 400),
    "no number": lambda text: text.replace("12.5", "NaN"),
    "infinite pictures": lambda text: text.replace(": 256", ": Infinity"),
    "deep": lambda text: "[" * 100_000,
    "int8 by torch": lambda text: text.replace('"openvino"', '"torch"'),
    "words for numbers": lambda text: text.replace("31.0", '"fast"'),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_is_made_again(kept, kind, caplog):
    write(kept)
    text = kept.record_path.read_text()
    assert DAMAGE[kind](text) != text
    kept.record_path.write_text(DAMAGE[kind](text))
    assert kept.read() is None
    [line] = caplog.messages
    assert "damaged" in line and str(kept.record_path) in line


@pytest.mark.parametrize("damage", ["changed", "cut short", "gone"])
def test_a_tower_that_is_not_as_recorded_is_never_used(kept, damage, caplog):
    record = write(kept)
    path = kept.tower_path("int8")
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"A tower" if damage == "changed" else b"a tow")
    assert kept.tower(record, "int8") is None
    assert kept.read() is None, "so that both are made again"
    assert len(caplog.messages) == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot make .*engines"):
        write(Kept(tmp_path / "file" / "engines", "ab" * 32))


def test_a_record_says_what_is_used_and_why():
    assert INT8.described() == (
        "int8 (OpenVINO): 3.1 x torch float32, cosine 0.9980 mean / 0.9900 worst on 256 pictures, "
        "recall@10 0.970"
    )
    poor = replace(INT8, precision="float32", int8=POOR)
    assert poor.described().startswith("float32 (OpenVINO): 1.3 x torch float32; int8 is not faith")
    slow = replace(INT8, engine="torch", precision="float32")
    assert "faithful but not faster: 31.0 pictures a second" in slow.described()
    failed = replace(slow, int8=None, problem="no such operator")
    assert failed.described() == "float32 (torch); no int8: no such operator"
    alone = Record("torch", "bfloat16", "", {"torch float32": 10, "torch bfloat16": 25}, None)
    assert alone.described() == "bfloat16 (torch): 2.5 x torch float32"
    speeds = {"torch float32": 17, "torch bfloat16": 10}
    exact = Record("torch", "float32", "", speeds, None)
    assert exact.described() == "float32 (torch): 1.7 x torch bfloat16"


def test_what_is_kept_of_a_model_can_be_deleted(kept):
    write(kept)
    write(Kept(kept.folder, "cd" * 32))
    before = sum(file.stat().st_size for file in kept.folder.iterdir())
    assert 0 < forget(kept.folder, kept.identity) < before
    assert kept.read() is None and Kept(kept.folder, "cd" * 32).read()
    assert forget(kept.folder / "missing", kept.identity) == 0


def test_switches_that_hide_instructions_count(monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert cpu_features()["ATEN_CPU_CAPABILITY"] == "default"
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    assert "ATEN_CPU_CAPABILITY" not in cpu_features()
    assert cpu_features()["machine"] == os.uname().machine


@pytest.mark.parametrize(
    ("features", "level", "expected"),
    [
        (["avx2", "avx512_vnni"], None, True),
        (["avx2", "avx_vnni"], None, True),
        (["avx2", "avx512f"], None, False),
        (["avx2", "avx512_vnni"], "AVX2", False),
        (["avx2", "avx512_vnni"], "AVX512_CORE_VNNI", True),
    ],
)
def test_weights_keep_7_bits_where_products_would_saturate(monkeypatch, features, level, expected):
    told = {"machine": "x86_64", "features": features}
    told |= {"ONEDNN_MAX_CPU_ISA": level} if level else {}
    monkeypatch.setattr(quantise, "cpu_features", lambda: told)
    assert quantise.sums_exactly() is expected
    monkeypatch.setattr(quantise, "cpu_features", lambda: {"machine": "aarch64"})
    assert quantise.sums_exactly() is True
