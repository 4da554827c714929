from pathlib import Path

import pytest

from fovea.search.clip.config import ClipConfig
from fovea.search.clip.datasets.pairs import PairSource
from fovea.search.clip.errors import ModelError
from fovea.search.clip.training.augment import Augmentation
from fovea.search.clip.training.recipe import TrainOptions, read_recipe

RECIPE = """
batch_size = 64
lr = 2e-3

[vision]
width = 40

[augmentation]
area = [0.5, 1.0]

[[sources]]
images = ["a.tar", "b.tar"]
labels = "l.jsonl"
classes = "c.json"
weight = 2
split = "train"
exclude = ["snow*"]
hypernyms = { feline = ["puma", "lion"], "big cat" = "lion" }
"""


def write(folder, text=RECIPE):
    (folder / "recipe.toml").write_text(text)
    return folder / "recipe.toml"


def test_a_recipe_holds_a_run(tmp_path):
    options = read_recipe(write(tmp_path), out=Path("here"), lr=None, seed=5)
    assert options.out == Path("here")
    assert (options.batch_size, options.lr, options.seed) == (64, 2e-3, 5)
    assert options.augmentation == Augmentation(area=(0.5, 1.0))
    assert options.sources == (
        PairSource(
            (tmp_path / "a.tar", tmp_path / "b.tar"),
            labels=tmp_path / "l.jsonl",
            classes=tmp_path / "c.json",
            split="train",
            weight=2.0,
            exclude=("snow*",),
            hypernyms={"feline": ("puma", "lion"), "big cat": ("lion",)},
        ),
    )
    assert options.config(1000).vision.width == 40


def test_a_recipes_data_may_lie_elsewhere(tmp_path):
    options = read_recipe(write(tmp_path), folder=Path("data"), out=Path("here"))
    assert options.sources[0].labels == Path("data/l.jsonl")


def test_an_override_wins_over_the_recipe(tmp_path):
    assert read_recipe(write(tmp_path), out=Path("here"), batch_size=8).batch_size == 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("colour = 1", "'colour'"),
        ("= 3", "recipe.toml"),
        ("", r"has no data; add \[\[sources\]\], or give --images"),
        ("sources = [3]", r"not a training recipe: sources is \[3\]; give tables"),
        ("sources = 3", "sources is 3; give tables"),
        ("sources = []\nmeasure = 3", "measure is 3; give tables"),
        ("[[sources]]\nimages = 'x'\ncaption = 'y'", "a source has no field 'caption'"),
        ("[[sources]]\ncaptions = 'y'", "has no images"),
        ("[[sources]]\nimages = 3", "images is 3"),
        ("[[sources]]\nimages = 'x'\nlabels = 3", "labels is 3"),
        ("[[sources]]\nimages = 'x'\nsplit = 3", "split is 3"),
        ("[[sources]]\nimages = 'x'\nweight = 'y'", "weight is 'y'; give a number above 0"),
        ("[[sources]]\nimages = 'x'\nweight = nan", "weight is nan"),
        ("[[sources]]\nimages = 'x'\nweight = true", "weight is True"),
        ("sources = []\n[augmentation]\nflip = true", "flip is True"),
        ("sources = []\ntune = true", "tune is True"),
        ("[[sources]]\nimages = 'x'\nexclude = ['*']", "exclude is"),
        ("[[sources]]\nimages = 'x'\nexclude = 3", "exclude is"),
        ("[[sources]]\nimages = 'x'\nhypernyms = 3", "hypernyms is 3"),
        ("[[sources]]\nimages = 'x'\nhypernyms.cat = [3]", "cat is"),
        (
            "sources = []\n[augmentation]\nblur = 1",
            "augmentation has no field 'blur'; it has area, aspect, flip",
        ),
        ("sources = []\n[augmentation]\narea = 3", "area is 3; give two numbers above 0"),
        ("sources = []\n[augmentation]\narea = [1]", "area is"),
        ("sources = []\n[augmentation]\naspect = [0.5, 'wide']", "aspect is"),
        ("sources = []\n[augmentation]\naspect = [0.5, inf]", "aspect is"),
        ("sources = []\n[augmentation]\nflip = 'often'", "flip is 'often'; give a number from 0"),
        ("sources = []\naugmentation = 3", "augmentation is 3"),
        ("sources = []\nvision = 3", "vision is 3; give a table"),
        ("sources = []\ninit = 3", "init is 3; give a model's folder"),
        ("sources = []\ndevice = 3", "device is 3"),
        ("sources = []\nout = 3", "out is"),
    ],
)
def test_a_bad_recipe_is_named(tmp_path, text, told):
    with pytest.raises(ModelError, match=told) as error:
        read_recipe(write(tmp_path, text), sources=None, **{} if "out" in text else {"out": Path()})
    assert "\n" not in str(error.value)


def test_the_default_shape_is_a_small_resnet():
    config = TrainOptions(out=Path("x"), sources=()).config(6514)
    assert config.vision.is_resnet and config.vision.heads == 16
    assert config.text.vocab_size == 6514 and config.text.context_length == 77


def test_a_recipe_may_fine_tune(tmp_path):
    path = write(tmp_path, 'init = "start"\ntune = 2\nsources = []')
    options = read_recipe(path, out=Path("here"))
    assert (options.init, options.tune) == (tmp_path / "start", "2")


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 0},
        {"accumulate": 0},
        {"log_every": 0},
        {"save_every": 2.5},
        {"samples": "many"},
        {"workers": -1},
        {"seed": -1},
        {"seed": 1 << 64},
        {"seed": True},
        {"samples": 5, "batch_size": 16},
        {"muon": 0.04, "lr": 0.0},
        {"lr": "fast"},
        {"lr": float("nan")},
        {"weight_decay": -0.1},
        {"warmup": 1.5},
        {"augmentation": 3},
        {"tune": "some"},
        {"tune": "-1"},
        {"tune": "2"},  # of a new model
        {"vision": {"width": 40}, "init": Path("start")},
        {"embed_dim": 17, "init": Path("start")},
        {"embed_dim": 256, "init": Path("start")},
        {"hidden": -1},
        {"views": 1.5},
        {"distil": -0.1},
        {"average": 1.0},
        {"class_names": 1},
        {"image_tower": 3},
        {"int8_text": 1},
        {"image_lr": -1e-4},
        {"text_lr": 1e-4, "lr": 0.0},
        {"text_lr": 0.0, "lr": 0.0},
        {"image_lr": 0, "lr": 0},
        {"image_lr": True},
        {"lr": True},
        {"class_gain": 0, "init": Path("start")},
        {"class_gain": True, "init": Path("start")},
        {"tune": True},
    ],
)
def test_values_that_make_no_run_are_named(bad):
    name = next(iter(bad))
    with pytest.raises(ModelError, match=name) as told:
        TrainOptions(**{"out": Path("x"), "sources": ()} | bad)
    assert "\n" not in str(told.value)


PARTS = {"image_tower": "efficientnet-lite0", "text_tower": "all-minilm-l6"}
SOURCE = PairSource((Path("a.tar"),), views=1)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"image_tower": "x"}, "image_tower and text_tower go together; give both"),
        ({"text_tower": "x"}, "image_tower and text_tower go together; give both"),
        (PARTS | {"init": Path("start")}, r"image_tower and text_tower or from init \(start\)"),
        ({"tune_image": "2"}, "give the model as --init, or its parts as --image-tower and"),
        ({"tune_text": "some"}, "tune_text is 'some'; give 'all' or a number of blocks"),
        ({"hidden": 8}, "hidden is for a model made of parts; leave it out"),
        ({"queries": 2, "init": Path("start")}, "queries is for a model made of parts"),
        ({"class_names": True}, "class_names is for a model made of parts"),
        (PARTS | {"vision": {"width": 40}}, "vision is for a model without parts; leave it out"),
        (PARTS | {"text": {"width": 40}}, "text is for a model without parts"),
        (PARTS | {"merges": 40}, "merges is for a model without parts"),
        (
            PARTS | {"views": 2},
            "views is 2, but only locked layers' features can be kept; set tune",
        ),
        ({"class_gain": 2.0}, "class_gain is for a model with class names; set class_names or"),
        (PARTS | {"class_gain": 2.0}, "class_gain is for a model with class names"),
        (PARTS | {"distil": 0.1}, "distil needs kept views; set views to 1 or more"),
        (PARTS | {"virtual": 0.1}, "virtual needs kept views"),
        (
            PARTS | {"virtual": 0.1, "views": 1, "tune": "2", "accumulate": 2},
            "virtual needs the whole batch; leave accumulate out",
        ),
        (PARTS | {"sources": (SOURCE,)}, "a source has views, but the run keeps none"),
    ],
)
def test_options_that_do_not_go_together_are_named(bad, told):
    with pytest.raises(ModelError, match=told) as error:
        TrainOptions(**{"out": Path("x"), "sources": ()} | bad)
    assert "\n" not in str(error.value)


def test_a_recipe_may_start_from_parts(tmp_path):
    lines = ['image_tower = "efficientnet-lite0"', 'text_tower = "towers/bert"', "tune_image = 5"]
    lines += ['tune_text = "all"', "views = 4", "class_names = true", "[[sources]]"]
    lines += ['images = ["a.tar"]', "views = 1"]
    path = write(tmp_path, "\n".join(lines))
    options = read_recipe(path, out=Path("here"))
    assert options.image_tower == "efficientnet-lite0"
    assert options.text_tower == str(tmp_path / "towers" / "bert")
    assert (options.tuned_image, options.tuned_text, options.tune) == ("5", "all", "all")
    assert (options.views, options.sources[0].views, options.embed_dim) == (4, 1, None)
    moved = read_recipe(path, folder=Path("data"), out=Path("here"), image_tower="mine")
    assert (moved.image_tower, moved.text_tower) == ("mine", "data/towers/bert")
    absolute = write(tmp_path, path.read_text().replace("towers/bert", str(tmp_path / "bert")))
    assert read_recipe(absolute, out=Path("here")).text_tower == str(tmp_path / "bert")


def test_a_recipes_paths_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    lines = ['init = "~/start"', 'out = "~/run"', 'features = "~/f"', "views = 1", "tune = 2"]
    path = write(tmp_path, "\n".join([*lines, "[[sources]]", 'images = "~/a.tar"']))
    options, home = read_recipe(path), tmp_path / "home"
    assert (options.init, options.out, options.features) == (
        home / "start",
        home / "run",
        home / "f",
    )
    assert options.sources[0].images == (home / "a.tar",)


def test_the_views_of_a_source_are_a_number(tmp_path):
    for views in ("0", "'two'", "true"):
        path = write(tmp_path, f"views = 2\n[[sources]]\nimages = 'x'\nviews = {views}")
        with pytest.raises(ModelError, match="a source's views is .*; give a whole number of 1"):
            read_recipe(path, out=Path("here"))


@pytest.mark.parametrize(
    ("vision", "told"),
    [
        ({"image_size": 80}, "not 80"),
        ({"image_size": 0}, "image_size is 0; give whole numbers of 1 or more"),
        ({"foo": 3}, "vision has no field 'foo'; it has image_size, layers, width, heads, patch"),
        ({"layers": [2, 2, 2, "x"]}, "layers is"),
        ({"width": 32.5}, "width is 32.5"),
        ({"patch_size": 16}, "a ResNet has four stages and no patches"),
        ({"heads": 7}, "7 heads"),
        ({"layers": [1, 2]}, "4 stages"),
        ({"layers": 2, "patch_size": 128}, "it should be 128 or more"),
        ({"layers": 2}, "patch_size"),
    ],
)
def test_a_shape_that_makes_no_model_is_named(vision, told):
    with pytest.raises(ModelError, match=told):
        TrainOptions(out=Path("x"), sources=(), vision=vision).config(600)


def test_what_is_said_of_the_text_tower_is_checked_too():
    for text, told in (
        ({"vocab_size": 600}, "text has no field 'vocab_size'"),
        ({"layers": [1]}, "text: layers"),
    ):
        with pytest.raises(ModelError, match=told):
            TrainOptions(out=Path("x"), sources=(), text=text)


@pytest.mark.parametrize(
    ("vision", "told"),
    [
        ({"layers": [0, 1, 1, 1]}, r"layers are \(0, 1, 1, 1\); each should be 1 or more"),
        ({"layers": [1, 1, 1, -2]}, "each should be 1"),
        ({"layers": 0, "patch_size": 16}, "layers are 0"),
        ({"layers": 1, "patch_size": 0}, "patch_size is 0"),
        ({"layers": 1, "patch_size": -8}, "patch_size is -8"),
        ({"width": 1}, "width is 1"),
    ],
)
def test_a_configuration_that_makes_no_model_is_named(vision, told):
    shape = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 32, "heads": 1} | vision
    text = {"width": 32, "heads": 2, "layers": 1}
    with pytest.raises(ModelError, match=told):
        ClipConfig.from_dict({"embed_dim": 16, "vision_cfg": shape, "text_cfg": text})
