from pathlib import Path

import pytest

from search.clip.augment import Augmentation
from search.clip.errors import ModelError
from search.clip.options import TrainOptions, read_recipe
from search.clip.pairs import Source

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
        Source(
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
        ("sources = [3]", "not a training"),
        ("[[sources]]\nimages = 'x'\ncaption = 'y'", "'caption' is no field"),
        ("[[sources]]\ncaptions = 'y'", "'images'"),
        ("[[sources]]\nimages = 'x'\nexclude = ['*']", "exclude is"),
        ("[[sources]]\nimages = 'x'\nexclude = 3", "exclude is"),
        ("[[sources]]\nimages = 'x'\nhypernyms.cat = [3]", "cat is"),
        ("sources = []\n[augmentation]\nblur = 1", "'blur'"),
    ],
)
def test_a_bad_recipe_is_named(tmp_path, text, told):
    with pytest.raises(ModelError, match=told):
        read_recipe(write(tmp_path, text), out=Path("here"), sources=None)


RECIPES = sorted((Path(__file__).parents[1] / "data" / "fovea-small").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_bundled_models_recipes_can_be_repeated(path):
    init = None if path.stem in ("stage-1", "stage-7") else Path("before")
    options = read_recipe(path, folder=Path("data"), out=Path("here"), init=init)
    assert [source.split for source in options.sources] == ["train", "train"]


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
    ],
)
def test_values_that_make_no_run_are_named(bad):
    name = next(iter(bad))
    with pytest.raises(ModelError, match=name) as told:
        TrainOptions(**{"out": Path("x"), "sources": ()} | bad)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("vision", "told"),
    [
        ({"image_size": 80}, "not 80"),
        ({"image_size": 0}, "smaller"),
        ({"heads": 7}, "7 heads"),
        ({"layers": [1, 2]}, "4 stages"),
        ({"layers": 2, "patch_size": 128}, "smaller than one of 128"),
        ({"layers": 2}, "patch_size"),
        ({"layers": [0, 1, 1, 1]}, r"layers are \(0, 1, 1, 1\); each should be 1 or more"),
        ({"layers": [1, 1, 1, -2]}, "each should be 1"),
        ({"layers": 0, "patch_size": 16, "heads": 2}, "layers are 0"),
        ({"layers": 1, "patch_size": 0, "heads": 2}, "patch_size is 0"),
        ({"layers": 1, "patch_size": -8, "heads": 2}, "patch_size is -8"),
        ({"width": 1, "heads": 1}, "width is 1"),
    ],
)
def test_a_shape_that_makes_no_model_is_named(vision, told):
    with pytest.raises(ModelError, match=told):
        TrainOptions(out=Path("x"), sources=(), vision=vision).config(600)
