"""``fovea models use`` on a real Milvus server: another collection, and an alias that picks it."""

import threading
from pathlib import Path

import pytest

import fovea.search.cluster.ledger as ledger_module
from coloured import COLOURS, encoded
from commands import run, settle
from fovea.search.cluster.address import FOLDER
from fovea.search.cluster.store import Store
from fovea.search.errors import LibraryAway
from fovea.web.app import create_app
from libraries import eventually
from small_clips import write_model

BASE = "http://localhost"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models, and pictures of one colour each."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second")):
        write_model(folder / name, seed=seed)
    return folder


@pytest.fixture
def place(models, address, tmp_path, monkeypatch):
    """The address of a library with pictures that were indexed by the first model."""
    settle(monkeypatch, models)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, colour in enumerate(COLOURS):
        (photos / f"{colour}.png").write_bytes(encoded(colour, number))
    index(photos, address, "--model", models / "first")
    return str(address)


def index(photos, address, *more):
    options = ("--workers", 1, "--dtype", "float32", "--json")
    done = run("index", photos, "--library", address, *options, *more)
    assert done.code == 0, done.err
    return done


def use(name, address, *more):
    return run("models", "use", name, "--library", address, "--workers", 1, *more)


def used(cluster):
    found = cluster.used(now=True)
    return found.model.name, cluster.client.count(found.collection, consistency="Session")


class Asking:
    """Somebody who searches in a served library, again and again."""

    def __init__(self, address):
        self.app = create_app(Path(address), testing=True)
        self.models, self.failed, self.is_over = [], [], False
        self.thread = threading.Thread(target=self.ask)

    def ask(self):
        client = self.app.test_client()
        while not self.is_over:
            answer = client.get("/api/search?q=the+dog&limit=3", base_url=BASE)
            said = answer.json
            if answer.status_code != 200 or len(said["hits"]) != 3:
                self.failed.append((answer.status_code, said))
            elif said["model"] not in self.models[-1:]:
                self.models.append(said["model"])

    def __enter__(self):
        self.thread.start()
        eventually(lambda: self.models or self.failed, seconds=60)
        return self

    def __exit__(self, *error):
        self.is_over = True
        self.thread.join()
        self.app.extensions["fovea"].close()


def test_the_model_changes_and_back_while_somebody_searches(place, models, cluster, monkeypatch):
    passed = []
    upsert = Store.upsert

    def counted(self, pictures, **named):
        passed.append(len(pictures))
        return upsert(self, pictures, **named)

    monkeypatch.setattr(Store, "upsert", counted)
    with Asking(place) as asking:
        done = use(models / "second", place)
        assert done.code == 0 and "uses second from now on" in done.err, done.err
        assert used(cluster) == ("second", len(COLOURS)) and sum(passed) == len(COLOURS)
        eventually(lambda: asking.models == ["first", "second"], seconds=60)
        passed.clear()
        back = use("first", place, "--json")
        assert back.json["embedded"] == 0 and sum(passed) == 0  # all are there already
        assert used(cluster) == ("first", len(COLOURS))
        eventually(lambda: asking.models == ["first", "second", "first"], seconds=60)
    assert asking.failed == []


def test_a_change_that_is_broken_off_is_repeated(place, models, cluster, monkeypatch):
    monkeypatch.setattr(ledger_module, "BATCH", 3)
    upsert, calls = Store.upsert, []

    def failing(self, pictures, **named):
        calls.append(1)
        if len(calls) == 2:
            raise LibraryAway("Milvus is away")
        return upsert(self, pictures, **named)

    monkeypatch.setattr(Store, "upsert", failing)
    broken = use(models / "second", place)
    assert broken.code == 1 and broken.err.endswith("Error: Milvus is away\n")
    assert used(cluster) == ("first", len(COLOURS))
    assert run("search", "the dog", "--library", place, "--json").json["model"] == "first"
    done = use("second", place)
    assert done.code == 0 and "uses second from now on" in done.err, done.err
    assert used(cluster) == ("second", len(COLOURS))
    assert f"{place} already uses second" in use("second", place).err


def test_what_changed_meanwhile_goes_back_too(place, models, cluster, tmp_path):
    use(models / "second", place)
    photos = tmp_path / "photos"
    (photos / "red.png").unlink()
    (photos / "new.png").write_bytes(encoded("red", 99))
    (photos / "lime.png").rename(photos / "renamed.png")
    index(photos, place)
    wanted = sorted(path.name for path in photos.iterdir())
    assert names(cluster) == wanted
    assert use("first", place).code == 0
    assert used(cluster) == ("first", len(wanted)) and names(cluster) == wanted


def names(cluster):
    files = [file for batch in Store(cluster).pictures() for one in batch for file in one.files]
    return sorted(file.path.rpartition(b"/")[2].decode() for file in files)


def test_a_machine_that_does_not_know_of_the_change_does_not_undo_it(
    place, models, cluster, tmp_path, monkeypatch
):
    here = tmp_path / "milvus"
    monkeypatch.setenv(FOLDER, str(tmp_path / "another machine"))
    photos = tmp_path / "photos"
    index(photos, place)
    monkeypatch.setenv(FOLDER, str(here))
    assert use(models / "second", place).code == 0
    monkeypatch.setenv(FOLDER, str(tmp_path / "another machine"))
    (photos / "new.png").write_bytes(encoded("red", 99))
    stale = run("index", photos, "--library", place, "--workers", 1, "--dtype", "float32")
    assert stale.code == 1 and f"fovea models use second --library {place}" in stale.err
    assert used(cluster) == ("second", len(COLOURS))
    assert use(models / "second", place).code == 0
    assert used(cluster) == ("second", len(COLOURS) + 1)
    assert run("verify", "--library", place).code == 0
    gone = run("roots", "remove", photos, "--library", place)
    assert gone.code == 0 and f"{len(COLOURS) + 1} removed" in gone.err, gone.err
    assert names(cluster) == []
