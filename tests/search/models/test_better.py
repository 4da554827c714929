import pytest

import fovea.data as data
from fovea.search.library.rows import ModelRow
from fovea.search.models import installed
from fovea.search.models.better import Offer, better_model
from fovea.search.models.named_hub import NAMED_HUB_MODELS, RECOMMENDED, find_named
from fovea.search.models.openai import OPENAI_MODELS, find_openai
from fovea.search.models.store import write_notes
from small_clips import write_model

BUNDLED = ModelRow(1, "fovea-small", "0" * 64, 48, "bundled")
FORMER = ModelRow(1, "fovea-small-1", "f" * 64, 48, "bundled")
OFFER = Offer("ViT-B-32-256", 605_000_000)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder of models."""
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path / "models"))
    for name in ("FOVEA_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(installed, "bundled_model", lambda: None)
    return tmp_path / "models"


def pull_recommended(place):
    write_model(place / "pulled")
    write_notes("hub.json", {RECOMMENDED.hub_id: str(place / "pulled")})


def test_a_bundled_model_and_a_new_library_are_offered_the_recommended_one():
    assert better_model(BUNDLED) == better_model(None) == OFFER


@pytest.mark.parametrize("source", ["published", "hub", "address", "/home/me/mine"])
def test_any_other_model_is_left_alone(source):
    assert better_model(ModelRow(1, "RN50", "0" * 64, 48, source)) is None


@pytest.mark.parametrize("name", ["FOVEA_OFFLINE", "HF_HUB_OFFLINE"])
def test_without_downloads_only_what_is_here_is_offered(place, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert better_model(BUNDLED) is None and better_model(None) is None
    write_model(place / "RN50")
    assert better_model(BUNDLED) == Offer("RN50", 0)


def test_a_worse_model_on_the_disk_stands_back_and_a_better_one_does_not(place):
    write_model(place / "ViT-B-32")
    assert better_model(BUNDLED) == OFFER
    assert better_model(None) is None, "a new library takes what is here"
    pull_recommended(place)
    assert better_model(BUNDLED) == Offer("ViT-B-32-256", 0)
    write_model(place / "ViT-L-14")
    assert better_model(BUNDLED) == Offer("ViT-L/14", 0)


@pytest.fixture
def succeeded(place, monkeypatch):
    """A bundled model that has followed the one of ``FORMER``."""
    monkeypatch.setattr(data, "FORMER", {FORMER.name: FORMER.identity})
    monkeypatch.setattr(installed, "bundled_model", lambda: place / "bundled")


def test_a_former_model_is_followed_by_the_best_one_here_at_once(succeeded, place, monkeypatch):
    assert better_model(FORMER) == Offer("fovea-small", 0)
    write_model(place / "RN50")  # better than any bundled one: no second change of model
    assert better_model(FORMER) == Offer("RN50", 0)
    pull_recommended(place)
    monkeypatch.setenv("FOVEA_OFFLINE", "1")
    assert better_model(FORMER) == Offer("ViT-B-32-256", 0)


def test_without_the_bundled_model_a_former_one_is_like_any_small_one(succeeded, monkeypatch):
    monkeypatch.setattr(installed, "bundled_model", lambda: None)
    assert better_model(FORMER) == OFFER


def test_no_two_models_share_a_name():
    for model in NAMED_HUB_MODELS:
        for name in (model.name, model.hub_id, *model.aliases):
            assert find_named(name.swapcase()) == model and find_openai(name) is None
    assert all(find_named(model.name) is None for model in OPENAI_MODELS)
