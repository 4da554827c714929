import json
from pathlib import Path

import pytest

from coloured import COLOURS, captioned_source
from commands import run
from fovea.search.clip.training.recipe import TrainOptions
from small_clips import install_parts


def test_defaults_in_the_help_are_the_options_own():
    defaults = TrainOptions(out=Path("x"), sources=())
    text = " ".join(run("train", "--help").out.partition("Options:")[2].split())
    for name in ("tune", "batch_size", "accumulate", "samples", "lr", "weight_decay", "warmup",
                 "seed", "workers", "log_every", "save_every", "device", "dtype", "hidden",
                 "queries"):  # fmt: skip
        words = text.split(f"--{name.replace('_', '-')} ")[1].split("[default: ")[1].split("]")[0]
        assert words == str(getattr(defaults, name)), name


def test_a_model_is_trained_evaluated_and_used(used, tmp_path):
    source = captioned_source(tmp_path)
    (tmp_path / "recipe.toml").write_text(
        "embed_dim = 16\nmerges = 40\n"
        "[vision]\nimage_size = 32\npatch_size = 16\nlayers = 1\nwidth = 32\nheads = 2\n"
        "[text]\nwidth = 32\nheads = 2\nlayers = 1\ncontext_length = 16\n"
    )
    data = ["--captions", source.captions, "--images", source.images[0]]
    options = ["--batch-size", 8, "--samples", 32, "--log-every", 2, "--workers", 1]
    done = run(
        "train", "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.toml", *data, *options,
        "--split", "train", "--device", "cpu", "--dtype", "float32",
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert str(tmp_path / "run" / "model") in done.err
    model = ["--model", tmp_path / "run" / "model"]
    found = run("evaluate", *data, "--split", "dev", *model, "--json").json
    assert list(found) == ["images", "captions", "text_to_image", "image_to_text"]
    assert (found["images"], found["captions"]) == (6, 12)
    assert list(found["text_to_image"]) == ["recall@1", "recall@5", "recall@10"]
    assert all(0 <= figure <= 1 for figure in found["image_to_text"].values())
    table = run("evaluate", *data, *model).out
    assert "text to image recall@10\t1.0000" not in table  # of 24 images
    assert table.startswith("images\t24\n")
    with source.captions.open("a") as file:
        file.write('\n{"file": "gone.png", "caption": "x"}\n{"file": "red0.png", "caption": " "}')
    short = run("evaluate", *data, *model, "--json")
    assert (short.json["images"], short.json["captions"]) == (24, 48)
    assert "left out 1 of 26 lines of" in short.err and "left out 1 empty captions of" in short.err


def test_a_model_is_trained_from_parts(used, tmp_path, monkeypatch):
    install_parts(tmp_path / "packages", monkeypatch)
    source = captioned_source(tmp_path)
    data = ["--captions", source.captions, "--images", source.images[0]]
    towers = ["--image-tower", "tiny-lite", "--text-tower", "tiny-bert", "--class-names"]
    tuned = ["--tune-image", 2, "--tune-text", "all", "--image-lr", 1e-4, "--text-lr", 1e-5]
    head = ["--hidden", 8, "--queries", 2, "--views", 2, "--distil", 0.2, "--virtual", 0.2]
    options = ["--average", 0.9, "--batch-size", 8, "--samples", 16, "--device", "cpu"]
    done = run("train", "--out", tmp_path / "run", *data, *towers, *tuned, *head, *options)
    assert done.code == 0, done.err
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["model_cfg"]
    vision = config["vision_cfg"]
    assert (vision["hidden"], vision["queries"], vision["classes"]) == (8, 2, 6)
    assert config["embed_dim"] == config["text_cfg"]["width"] == 32
    odd = run("train", "--out", tmp_path / "odd", *data, *towers, "--views", 2)
    assert odd.code == 1 and odd.err.count("\n") == 1 and "set tune_image to" in odd.err


def test_parts_that_are_not_installed_are_one_line(used, tmp_path, monkeypatch):
    install_parts(tmp_path / "packages", monkeypatch)
    (tmp_path / "packages" / "tiny_lite" / "__init__.py").unlink()
    (tmp_path / "packages" / "tiny_lite").rename(tmp_path / "gone")
    source = captioned_source(tmp_path)
    towers = ["--image-tower", "tiny-lite", "--text-tower", "tiny-bert"]
    data = ["--captions", source.captions, "--images", source.images[0]]
    done = run("train", "--out", tmp_path / "run", *data, *towers)
    assert done.code == 1 and done.err.count("\n") == 1
    assert "the package the-tiny-lite is not installed: pip install 'fovea[parts]'" in done.err


def test_zero_shot_accuracy_is_evaluated(used, tmp_path):
    source = captioned_source(tmp_path)
    names = list(COLOURS)
    rows = [{"file": f"{name}0.png", "label": names.index(name)} for name in names]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    classes = [{"label": number, "names": [name]} for number, name in enumerate(names)]
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    found = run(
        "evaluate", "--labels", tmp_path / "labels.jsonl", "--classes", tmp_path / "classes.json",
        "--images", tmp_path, source.images[0], "--model", used / "model", "--json",
    ).json  # fmt: skip
    assert 0 <= found["top1"] <= found["top5"] <= 1
    assert found["images"] == 6


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--images", "x"],
        ["evaluate", "--captions", "a", "--labels", "b", "--images", "x"],
        ["evaluate", "--labels", "b", "--images", "x"],
        ["evaluate", "--captions", "a"],
        ["train", "--out", "x"],
        ["train", "--images", "x"],
        ["train", "--out", "x", "--images", "y", "--warmup", "2"],
        ["train", "--out", "x", "--images", "y", "--average", "1"],
        ["train", "--out", "x", "--images", "y", "--views", "-1"],
        ["no-such-command"],
    ],
)
def test_misuse_exits_with_2(used, words):
    assert run(*words).code == 2


def test_data_that_is_not_there_is_one_line(used, tmp_path):
    done = run("train", "--out", tmp_path / "run", "--images", tmp_path / "none.tar")
    assert done.code == 1
    assert done.err.count("\n") == 1


def test_a_recipe_without_data_is_one_line(used, tmp_path):
    (tmp_path / "recipe.toml").write_text("seed = 1\n")
    done = run("train", "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.toml")
    assert done.code == 1 and "recipe.toml has no data; add [[sources]], or" in done.err


def test_a_report_that_cannot_be_written_is_told_before_anything_is_measured(used, tmp_path):
    words = ["--captions", tmp_path / "none.jsonl", "--images", tmp_path]
    done = run("evaluate", *words, "--report", tmp_path / "nowhere" / "x.html")
    assert done.code == 1
    assert f"there is no folder {tmp_path / 'nowhere'}; create it first" in done.err
