"""Indexing where no model is on the disk: at once, without the network, and with a word of it."""

import logging
import urllib.error
import urllib.request

import pytest

import fovea
from commands import pictures, run, settle
from fovea.search.models import installed
from fovea.search.models.store import write_notes
from loopback import lead_here, serving
from small_clips import write_model

LINE = (
    "fovea: the bundled model is small; ViT-B-32-256 understands far more and is a download of "
    "about 605 MB: fovea models use ViT-B-32-256"
)
WORKERS = ("--workers", 1)


@pytest.fixture
def new(home, tmp_path, monkeypatch):
    """A machine without a library and without a model but the bundled one; a server watches it."""
    settle(monkeypatch, home)
    monkeypatch.setenv("FOVEA_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path / "models"))
    with serving() as served:
        lead_here(monkeypatch, served)
        yield served


def contacts(served):
    return len(served.asked) + served.heads


def test_the_server_counts_what_would_leave_this_machine(new):
    for url in (new.url, "http://models.example/", "https://models.example/"):
        before = contacts(new)
        with pytest.raises(OSError) as refused:
            urllib.request.urlopen(url, timeout=5)
        if isinstance(refused.value, urllib.error.HTTPError):
            refused.value.close()
        assert contacts(new) == before + 1


def test_indexing_embeds_at_once_and_says_which_model_is_better(new, home):
    done = run("index", *[home / "photos"], *WORKERS)
    assert done.code == 0 and "embedded by fovea-small" in done.out
    assert done.err.splitlines()[0] == LINE
    assert run("search", "the dog").code == 0
    again = run("index", *WORKERS)
    assert again.err.count("ViT-B-32-256 understands") == 1
    assert contacts(new) == 0


def test_python_indexes_at_once_and_knows_the_better_model(new, home, tmp_path, caplog):
    with (
        caplog.at_level(logging.WARNING, "fovea"),
        fovea.Library.open(tmp_path / "other", create=True) as library,
    ):
        assert library.better_model() == fovea.Offer("ViT-B-32-256", 605_000_000)
        assert library.index(home / "photos", workers=1).embedded == len(pictures(home))
        assert library.model == "fovea-small"
        assert library.better_model() == fovea.Offer("ViT-B-32-256", 605_000_000)
        assert library.search("the dog").hits
    assert contacts(new) == 0


def test_the_command_names_the_library_where_it_was_named(new, home, tmp_path):
    place = tmp_path / "my library"
    done = run("index", home / "photos", "--library", place, *WORKERS)
    assert done.err.splitlines()[0] == f"{LINE} --library '{place}'"


def test_a_model_that_was_named_is_not_talked_down(new, home):
    done = run("index", home / "photos", "--model", "fovea-small", *WORKERS)
    assert done.code == 0 and "understands far more" not in done.err


@pytest.mark.parametrize("name", ["FOVEA_OFFLINE", "HF_HUB_OFFLINE"])
def test_where_downloads_are_switched_off_none_is_offered(new, home, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    done = run("index", home / "photos", *WORKERS)
    assert done.code == 0 and "understands far more" not in done.err


def test_a_better_model_on_the_disk_is_taken_and_none_is_offered(new, home, tmp_path):
    write_model(tmp_path / "models" / "ViT-B-32")
    done = run("index", home / "photos", *WORKERS)
    assert "embedded by ViT-B/32" in done.out and "understands far more" not in done.err


def test_a_better_model_that_came_later_is_offered_without_a_download(new, home, tmp_path):
    run("index", home / "photos", *WORKERS)
    write_model(tmp_path / "models" / "pulled", seed=2)
    hub_id = "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K"
    write_notes("hub.json", {hub_id: str(tmp_path / "models" / "pulled")})
    said = run("index", *WORKERS).err.splitlines()[0]
    assert said.endswith("and is on this disk: fovea models use ViT-B-32-256")
    used = run("models", "use", "vit-b-32-256", *WORKERS)
    assert used.out.startswith("the library now uses ViT-B-32-256"), used.err
    assert "understands far more" not in run("index", *WORKERS).err
    assert "ViT-B-32-256\thub\t" in run("models", "list").out
    assert "name\tViT-B-32-256\n" in run("models", "info", "ViT-B/32@256px").out
    assert contacts(new) == 0


def test_a_copy_without_the_bundled_model_says_what_to_do(new, home, monkeypatch):
    monkeypatch.setattr(installed, "bundled_model", lambda: None)
    done = run("index", home / "photos")
    assert done.code == 1 and "or name another model, such as ViT-B-32-256" in done.err
    assert contacts(new) == 0
