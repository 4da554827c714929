import os
import subprocess
import sys

import pytest

from commands import run
from fovea.search.clip.engines.faithful import Agreement
from fovea.search.clip.engines.record import Record
from fovea.search.models.resolve import resolve_model
from places import CHECKOUT
from small_clips import write_line, write_model


def test_models_are_listed(used):
    rows = [row.split("\t") for row in run("models").out.splitlines()]
    names = [row[0] for row in rows]
    assert names[:2] == ["fovea-small", "RN50"] and "ViT-B/32" in names
    entries = run("models", "list", "--json").json
    assert [entry["name"] for entry in entries] == names
    assert entries[0]["folder"] == str(used / "model")


def test_a_model_is_described(used):
    fields = run("models", "info", "fovea-small", "--json").json
    assert (fields["name"], fields["source"], fields["dim"]) == ("fovea-small", "bundled", 48)
    assert len(fields["sha256"]) == 64
    assert f"sha256\t{fields['sha256']}" in run("models", "info").out


def test_what_a_models_line_and_labels_are_worth_is_described(used, tmp_path):
    write_model(tmp_path / "measured", with_line=False)
    bare = run("models", "info", tmp_path / "measured")
    for part in ("line for words", "line for pictures"):
        assert f"\n{part}\tnot measured, so not drawn\n" in bare.out
    assert bare.out.endswith("\nlabels\tnot measured, so not shown\n")
    fields = run("models", "info", tmp_path / "measured", "--json").json
    assert (fields["line"], fields["labels"]) == ({"words": None, "pictures": None}, None)
    for told, verdict in ((0.9, "drawn"), (0.52, "not drawn")):
        write_line(tmp_path / "measured", told)
        out = run("models", "info", tmp_path / "measured").out
        said = f"{verdict}: it tells {told:.0%} of 400 answers rightly, a random one 50%"
        assert f"\nline for words\t{said.replace('%', ' %')}\n" in out
        fields = run("models", "info", tmp_path / "measured", "--json").json
        assert fields["line"]["pictures"] == {
            "told": told, "chance": 0.5, "answers": 400, "drawn": verdict == "drawn",
        }  # fmt: skip
    assert (
        "\nlabels\tshown: 100 % of the pictures get any, and the first is right for 90 % of" in out
    )
    assert fields["labels"] == {
        "threshold": 0, "right": 0.9, "shown": 1, "stricter": [], "used": True,
    }  # fmt: skip


def test_how_pictures_are_embedded_is_described(used, tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path / "models"))
    write_model(tmp_path / "mine")
    place = str(tmp_path / "mine")
    assert "\nembeds in\tnot measured on this CPU yet" in run("models", "info", place).out
    assert run("models", "info", place, "--json").json["embeds_in"] is None
    speeds = {"torch float32": 10.0, "openvino int8": 31.0}
    near = Agreement(0.998, 0.991, 0.97, 256)
    record = Record("openvino", "int8", "transformer", speeds, near, towers={"int8": "0" * 64})
    resolve_model(place).kept.write(record, {})
    told = "int8 (OpenVINO): 3.1 x torch float32, cosine 0.9980 mean / 0.9910 worst on 256 pictures"
    assert f"\nembeds in\t{told}, recall@10 0.970" in run("models", "info", place).out
    fields = run("models", "info", place, "--json").json["embeds_in"]
    assert fields["described"].startswith(told) and fields["speeds"] == speeds
    assert fields["int8"] == {"mean": 0.998, "worst": 0.991, "recall": 0.97, "pictures": 256}


def test_a_model_that_cannot_be_pulled_is_one_line(used):
    done = run("models", "pull", "ViT-B/32")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert "not on this disk" in done.err


def test_without_any_other_the_bundled_model_is_described(used, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fovea", "models", "info"],
        cwd=CHECKOUT,
        env=os.environ | {"FOVEA_LIBRARY": str(tmp_path), "FOVEA_MODELS": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip("this checkout has no bundled model")
    assert done.stderr == "" and done.stdout.startswith("name\tfovea-small\n")
