"""Bundled models of earlier versions of fovea: found by libraries, offered to nobody."""

import shutil

import pytest

from fovea.search.errors import ModelError
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow
from fovea.search.maintenance.changeover import find_model, resolve_in
from fovea.search.models.installed import (
    available_models,
    best_on_disk,
    better_bundled,
    delete_files,
    former_bundled,
    models_on_disk,
)
from fovea.search.models.resolve import resolve_known, resolve_model
from shipped_models import FORMER_NAME, identity, ship_now, write_editions
from small_clips import RESNET, VIT


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The folder of the former bundled model and of the present one; no network."""
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("FOVEA_OFFLINE", "1")
    write_editions(tmp_path / "shipped")
    ship_now(monkeypatch, tmp_path / "shipped")
    return tmp_path / "shipped"


@pytest.fixture
def row(shipped):
    """What a library from the former model's time knows it by."""
    return ModelRow(1, "fovea-small", identity(shipped / FORMER_NAME), VIT.embed_dim, "bundled")


@pytest.fixture
def library(tmp_path, row):
    with Library.open(tmp_path / "library", create=True) as library:
        library.set_model(row.name, row.identity, row.dim, row.source)
        yield library


def test_the_bundled_name_means_the_present_model(shipped):
    info = resolve_model("fovea-small")
    assert (info.folder, info.identity) == (
        shipped / "fovea-small", identity(shipped / "fovea-small"),
    )  # fmt: skip
    assert resolve_model().identity == info.identity, "and so does none where nothing else is"


@pytest.mark.parametrize("name", [FORMER_NAME, FORMER_NAME.upper()])
def test_a_former_model_can_be_named(shipped, name):
    info = resolve_model(name)
    assert (info.name, info.source, info.folder) == (FORMER_NAME, "bundled", shipped / FORMER_NAME)


def test_a_former_model_is_not_offered(shipped):
    assert FORMER_NAME not in available_models()
    assert best_on_disk() is None
    with pytest.raises(ModelError) as error:
        resolve_model("nothing")
    assert "choose fovea-small, RN50" in str(error.value)
    assert FORMER_NAME not in str(error.value)


def test_a_library_finds_its_model_by_its_weights(row, shipped):
    assert resolve_model(None, row).folder == shipped / FORMER_NAME
    assert resolve_known(row).name == FORMER_NAME


def test_a_users_own_model_that_is_gone_is_found_there_too(row, shipped, tmp_path):
    own = ModelRow(2, "mine", row.identity, row.dim, str(tmp_path / "gone"))
    assert resolve_known(own).folder == shipped / FORMER_NAME
    assert row.identity in {info.identity for info in models_on_disk()}


def test_a_library_has_better_only_than_a_former_model(row, shipped, tmp_path):
    now = ModelRow(3, "fovea-small", identity(shipped / "fovea-small"), 48, "bundled")
    own = ModelRow(2, "copy", row.identity, row.dim, str(tmp_path / "copy"))
    others = [None, now, own, ModelRow(4, "fovea-small", "0" * 64, 48, "bundled")]
    assert former_bundled(row) and not any(map(former_bundled, others))
    assert better_bundled(row) == "fovea-small"
    assert [better_bundled(other) for other in others] == [None] * 4


def test_without_a_bundled_model_none_is_better(row, shipped):
    shutil.rmtree(shipped / "fovea-small")
    assert not former_bundled(row) and better_bundled(row) is None
    assert resolve_known(row).name == FORMER_NAME


# In a library


def test_a_library_gives_a_former_model_its_name_of_today(library, shipped):
    assert library.rows("SELECT name FROM models") == [("fovea-small",)]
    assert library.model().name == FORMER_NAME
    assert [model.name for model in library.models()] == [FORMER_NAME]
    now = resolve_model("fovea-small")
    added = library.add_model(now.name, now.identity, now.dim, now.source)
    assert [model.name for model in library.models()] == [FORMER_NAME, "fovea-small"]
    assert find_model(library, "fovea-small") == added


def test_a_users_copy_keeps_its_own_name(library, row, tmp_path):
    library.add_model("copy", row.identity, row.dim, str(tmp_path / "copy"))
    assert library.model().name == "copy"


def test_the_bundled_name_means_the_present_model_in_a_library_too(library, shipped):
    assert resolve_in(library, "fovea-small").folder == shipped / "fovea-small"
    assert resolve_in(library, "Fovea-Small").folder == shipped / "fovea-small"
    assert resolve_in(library, FORMER_NAME).folder == shipped / FORMER_NAME


def test_a_library_by_an_unknown_state_of_the_bundled_model_can_be_given_the_present_one(
    library, shipped
):
    for letter in "ab":
        library.add_model("fovea-small", letter * 64, RESNET.embed_dim, "bundled")
    assert resolve_in(library, "fovea-small").folder == shipped / "fovea-small"


def test_a_former_model_that_was_left_out_is_told_with_the_next_step(library, shipped):
    shutil.rmtree(shipped / FORMER_NAME)
    with pytest.raises(ModelError, match=f"uses {FORMER_NAME}, which is not.*models use") as error:
        resolve_model(None, library.model())
    assert "\n" not in str(error.value)
    assert resolve_in(library, "fovea-small").folder == shipped / "fovea-small"


def test_a_former_models_files_are_not_deleted(library, shipped):
    for row in (None, library.model()):
        with pytest.raises(ModelError, match=f"{FORMER_NAME} is part of fovea"):
            delete_files(FORMER_NAME, row)
    assert (shipped / FORMER_NAME / "model.safetensors").is_file()
