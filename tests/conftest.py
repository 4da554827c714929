"""Shared fixtures: generated images, a toy encoder, small libraries, the app, a browser."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

# Threads that spin while they wait take minutes on machines with other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Tests that want analyses after indexing ask for them.
os.environ.setdefault("FOVEA_ANALYSES", "")

from browsing import chromium, draw_line, indexed, launched, served  # noqa: E402
from building import build, copy_checkout  # noqa: E402
from fovea.search.library.library import Library  # noqa: E402
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch  # noqa: E402
from fovea.web.app import create_app  # noqa: E402
from places import PHOTOS  # noqa: E402
from toys import COLOURS, ColourEncoder, TolerantEncoder, lazily  # noqa: E402


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of eight PNG files, each of one colour and named after it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for colour in COLOURS:
        Image.new("RGB", (32, 24), colour).save(folder / f"{colour}.png")
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """An empty library."""
    with Library.open(tmp_path / "library", create=True) as opened:
        yield opened


@pytest.fixture
def add_file(encoder: ColourEncoder) -> Callable[..., int]:
    """A function that stores a file under a root like an indexer and returns the image's id."""

    def add(library: Library, root_id: int, path: Path | bytes) -> int:
        model = library.set_model(encoder.name, encoder.identity, encoder.dim, "test")
        content = Path(os.fsdecode(path)).read_bytes()
        digest = hashlib.sha256(content).digest()
        with Image.open(io.BytesIO(content)) as image:
            [vector] = encoder.encode_images([image])
            metadata = ImageMetadata(image.width, image.height, image.format)
        status = os.stat(path)
        new = NewImage(digest, len(content), metadata, vector)
        file = FileWrite(os.fsencode(path), root_id, status.st_size, status.st_mtime_ns, digest)
        library.write_batch(WriteBatch([new], [file], model.id))
        return library.image_by_hash([digest])[digest]

    return add


@pytest.fixture
def colour_library(library: Library, photos: Path, add_file: Callable[..., int]) -> Library:
    """A library with the eight photos under one root."""
    root = library.add_root(photos)
    for path in sorted(photos.iterdir()):
        add_file(library, root.id, path)
    return library


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """The system's Chromium; each test opens contexts of its own in it."""
    with launched() as started:
        yield started


@pytest.fixture(scope="session")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the repository's files alone."""
    place = tmp_path_factory.mktemp("wheel")
    return build("wheel", copy_checkout(place / "source"), place / "out")


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the photographs (or drawings), by the bundled model."""
    chromium()  # skips before indexing
    library = indexed(tmp_path_factory.mktemp("gallery") / "library", PHOTOS)
    draw_line(library)
    with served(library) as address:
        yield address


@pytest.fixture
def app(colour_library: Library) -> Iterator[Flask]:
    """The web app for the eight photos, with the toy encoder."""
    encoder = TolerantEncoder()
    shared = lazily(encoder)
    made = create_app(colour_library.folder, encoder_of=lambda row: shared, testing=True)
    yield made
    made.extensions["fovea"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the app, which sends no headers of a browser."""
    return app.test_client()


@pytest.fixture
def ids(client: FlaskClient) -> dict[str, int]:
    """The id of each of the client's pictures by its name, without the ending."""
    hits = client.get("/api/search?q=&limit=100").get_json()["hits"]
    return {hit["name"].removesuffix(".png"): hit["image_id"] for hit in hits}


class NotedScans:
    """Records requested scans without running them."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.is_analysing = False
        self.analysed = 0  # how often what waits was to be analysed

    def analyse(self) -> None:
        self.analysed += 1

    def document(self) -> dict[str, object]:
        numbers = dict.fromkeys(("found", "done", "embedded", "failed", "skipped"), 0)
        times = {"rate": 0.0, "seconds_left": None, "started_at": "2024-07-01T10:00:00+00:00"}
        return {
            "id": 1,
            "state": "done",
            "doing": None,
            **numbers,
            **times,
            "roots": [],
            "unreached": [],
            "in_hand": [],
            "code": None,
            "ignore_files": [],
            "message": None,
        }

    def start(
        self, folders: Sequence[Path] = (), *, reread: bool = False, adds: bool = False
    ) -> dict[str, object]:
        verb = "reread" if reread else "start"
        self.calls.append((verb, [os.fspath(folder) for folder in folders]))
        return self.document()

    def stop(self) -> None:
        self.calls.append(("stop",))

    def turn_of(self, folder: bytes) -> None:
        return None


@pytest.fixture
def scans(app: Flask) -> NotedScans:
    """The scans that the app requests; none is run."""
    noted = app.extensions["fovea.scans"] = NotedScans()
    return noted


class NotedChanges:
    """Records requested changes of model without making them."""

    def __init__(self, state: Callable[[], dict[str, object]]) -> None:
        self.calls: list[tuple[object, ...]] = []
        self._state = state

    def state(self) -> dict[str, object]:
        return self._state()

    def start(self, name: str) -> None:
        self.calls.append(("start", name))

    def cancel(self) -> None:
        self.calls.append(("cancel",))


@pytest.fixture
def changes(app: Flask) -> NotedChanges:
    """The changes of model that the app requests; none is made."""
    real = app.extensions["fovea.changes"]
    noted = app.extensions["fovea.changes"] = NotedChanges(real.state)
    return noted


class NotedBuilding:
    """Records requested maps without laying them out."""

    def __init__(self) -> None:
        self.calls = 0

    def document(self) -> None:
        return None

    def start(self) -> None:
        self.calls += 1


@pytest.fixture
def map_building(app: Flask) -> NotedBuilding:
    """The maps that the app has laid out; none is."""
    noted = app.extensions["fovea.map"] = NotedBuilding()
    return noted
