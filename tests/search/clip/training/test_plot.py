import io
import json
import sys

import pytest
from PIL import Image

from fovea.search.clip.errors import ModelError
from fovea.search.clip.training.plot import draw_run, read_metrics

ROW = {"step": 5, "steps": 20, "samples": 40, "loss": 2.0, "lr": 0.1, "scale": 14.0}


def record(folder, *rows):
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(ROW | row) + "\n" for row in rows))
    return path


def test_a_run_is_drawn_with_a_panel_more_where_it_was_measured(tmp_path):
    plain = record(tmp_path, {}, {"step": 10, "samples": 80})
    draw_run(plain, tmp_path / "a.png")
    measured = record(tmp_path, {"held_out": {"flickr8k: recall@10": 0.1}}, {"step": 10})
    draw_run(measured, tmp_path / "b.png")
    sizes = []
    for name in "ab":
        with Image.open(io.BytesIO((tmp_path / f"{name}.png").read_bytes())) as image:
            image.load()
            sizes.append(image.size)
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] * 4 == sizes[1][1] * 3


def test_a_drawing_names_what_it_shows(tmp_path):
    found = {"held_out": {"flickr8k: recall@10": 0.25, "things: top-1": 0.5}}
    (tmp_path / "a$b_{$").mkdir()
    path = record(tmp_path / "a$b_{$", {}, {"step": 10, "samples": 80, **found})
    draw_run(path, tmp_path / "run.svg")
    text = (tmp_path / "run.svg").read_text()
    for word in ("loss", "temperature", "learning rate", "samples seen", "10 of 20 steps"):
        assert f"<!-- {word}" in text or word in text
    for name in found["held_out"]:
        assert name in text


def test_a_line_that_a_kill_cut_short_is_passed_over(tmp_path):
    path = record(tmp_path, {}, {"step": 10})
    path.write_text(path.read_text() + '{"step": 15, "lo')
    assert [row["step"] for row in read_metrics(path)] == [5, 10]
    path.write_text('{"step": 15, "lo\n' + json.dumps(ROW) + "\n")
    with pytest.raises(ModelError, match="line 1, is not a line"):
        read_metrics(path)


@pytest.mark.parametrize(("content", "told"), [(None, "cannot read"), ("", "is empty")])
def test_a_run_without_a_record_is_told(tmp_path, content, told):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ModelError, match=f"{told}.*train there first"):
        draw_run(tmp_path / "metrics.jsonl", tmp_path / "a.png")


def test_without_matplotlib_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModelError, match=r"pip install 'fovea\[plot\]'"):
        draw_run(record(tmp_path, {}), tmp_path / "a.png")
