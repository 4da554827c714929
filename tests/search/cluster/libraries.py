"""Generated libraries, written to both kinds; and how Milvus is asked in tests."""

import hashlib
import os
import tempfile
import time
import uuid
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from fovea.search.cluster.address import Address
from fovea.search.cluster.collections import Cluster
from fovea.search.cluster.store import Store
from fovea.search.library.rows import ImageMetadata, NewImage
from fovea.search.seam.writing import FileAt, Kept
from milvus_server import MilvusServer, MilvusUnavailable

DIM = 16
MODEL = ("toy", "5e" * 32, DIM, "test")
ROOTS = (b"/photos", "/Größe/写真".encode(), b"/odd \"root\" \\ 'x'")
FOLDERS = (
    b"",
    b"/2019",
    b"/2019/Beach",
    b"/holidays/2019",
    "/Été/2019".encode(),
    b'/a"] or number >= 0 or "b',
    b"/\xff\xfe",
    b"/a/b/c/d/e/f/g/h/i/j",
    b"/100%_sure\\",
    b"/new\nline",
)
NAMES = (
    b"IMG_0001.jpg",
    b"img_2.JPG",
    b"beach.png",
    "plage été.webp".encode(),
    "写真一枚.jpg".encode(),
    b"2019-07-14 10.15.00.jpg",
    b"IMG-20200101-WA0001.jpg",
    b"a\"b'c\\d%_.jpg",
    b"\xff\xfe img.jpg",
    b"aba.jpg",
    b"x",
)
CAMERAS = (None, "Canon EOS 5D", "NIKON D7", 'say "cheese" \\ \' %', "キヤノン", "canon")
TAKEN = (None, "2019", "2019-07", "2019-07-14", "2019-07-14T10:15:00", "2021-12-31T23:59:59")
TIMES = (0, 1_560_000_000 * 10**9, 1_600_000_000 * 10**9 + 7, -(10**18))
PORTUGAL = ["PT", "country", "Portugal", None, ["portugal"]]
NAMED = (
    None,
    {
        "key": "[1]", "town": "1", "city": None, "region": None, "country": "PT",
        "found": ["1", "PT"],
        "localities": [
            ["1", "town", "Lisbon", "里斯本", ["lisboa", "lisbon", "lissabon", "里斯本"]], PORTUGAL,
        ],
    },
    {
        "key": "[2]", "town": "2", "city": None, "region": None, "country": "PT",
        "found": ["2", "PT"],
        "localities": [["2", "town", 'A"b', None, ['a"b', "a b", "porto"]], PORTUGAL],
    },
)  # fmt: skip
PLACES = (None, (48.2, 16.4), (48.25, 16.4), (-48.2, -179.99), (89.9, 10.0), (0.0, 0.0))


def kept(number, files, *, dim=DIM, seed=0, named=None, **metadata):
    """A picture with these files, as ``(path, root, mtime_ns)``, and a vector of its own."""
    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    vector = np.random.default_rng(int.from_bytes(digest[:8])).normal(size=dim)
    vector = (vector / np.linalg.norm(vector)).astype(np.float16).astype(np.float32)
    size = metadata.pop("bytes", 1000)
    image = NewImage(digest, size, ImageMetadata(**metadata), vector / np.linalg.norm(vector))
    found = tuple(FileAt(path, root, size, when) for path, root, when in files)
    return Kept(image, found, named)


@st.composite
def libraries(draw, most=25):
    """Pictures whose files have paths of their own."""
    taken, found = set(), []
    for number in range(draw(st.integers(1, most))):
        files = []
        for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
            root = draw(st.sampled_from(ROOTS))
            path = root + draw(st.sampled_from(FOLDERS)) + b"/" + draw(st.sampled_from(NAMES))
            if path not in taken:
                taken.add(path)
                files.append((path, root, draw(st.sampled_from(TIMES))))
        if not files:
            continue
        place = draw(st.sampled_from(PLACES)) or (None, None)
        sides = st.sampled_from((None, 1, 30, 40, 41, 5000))
        width, height = draw(sides), draw(sides)
        found.append(
            kept(
                number,
                files,
                bytes=draw(st.sampled_from((0, 999, 1000, 6_000_000))),
                width=width,
                height=height,
                format=draw(st.sampled_from((None, "JPEG", "HEIF", "PNG"))),
                taken_at=draw(st.sampled_from(TAKEN)),
                camera=draw(st.sampled_from(CAMERAS)),
                lens=draw(st.sampled_from((None, "50mm", "NIKKOR Z 50mm f/1.8 S"))),
                duration_ms=draw(st.sampled_from((None, None, 1000, 90_001))),
                latitude=place[0],
                longitude=place[1],
                named=draw(st.sampled_from(NAMED)),
                damaged=draw(st.sampled_from((None, None, "half of it is missing"))),
            )
        )
    return found


VALUES = {
    "in": [
        "2019", "holidays/2019", "beach", "été/2019", "/photos", "/photos/2019", "/", "/Größe",
        "/größe", "nowhere", 'a"] or number >= 0 or "b', "b/c", "a/b/c/d/e/f/g/h/i", "100%_sure\\",
        "写真", "new\nline",
    ],
    "name": [
        "img", "IMG_*", "*.jpg", "b", "beach", "*each*", "a*a.jpg", "?mg*", "写真", "été",
        "aba*aba",
        'a"b\'c\\d%_.jpg', "%", "_", "*", "??", "2019-07-14*",
    ],
    "on": ["2019", "2019-07", "2019-07-14", "2020", "1970"],
    "after": ["2018", "2019-06", "2019-07-14", "2021-12-31"],
    "before": ["2019", "2019-07", "2019-07-14", "2022"],
    "camera": ["canon", "NIKON", '"', "%", "キヤノン", "nothing"],
    "lens": ["50", "z"],
    "format": ["jpg", "png", "heic"],
    "is": ["portrait", "landscape", "square", "damaged", "video", "favourite", "hidden"],
    "place": ["lisbon", "Lissabon", "里斯本", "portugal", "lisbon, portugal", "porto", "a\"b"],
    "size": [">1MP", "<=0.0012MP", ">999B", "<1kB", ">=6MB", "<6.000001MB", ">0.9999kB"],
    "longer": ["1s", "1m30s"],
    "near": ["48.2,16.4,10km", "48.2,16.4,1m", "-48.2,179.99,5km", "90,0,50km", "0,0,20000km"],
}  # fmt: skip


def eventually(check, seconds=15):
    """Try until reads, which may be some seconds old, show what was written."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "what was written is not read"
        time.sleep(0.05)


@contextmanager
def running_server(**options):
    """A real Milvus server of its own; without what it needs, skip the test."""
    if find_spec("pymilvus") is None:
        pytest.skip("pymilvus is not installed (the extra cluster)")
    with tempfile.TemporaryDirectory(prefix="milvus-") as folder:  # a socket's path is short
        server = MilvusServer(Path(folder), **options)
        try:
            server.start()
        except MilvusUnavailable as exc:
            server.close()
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no Milvus server here: {exc}")
        try:
            yield server
        finally:
            server.close()


@contextmanager
def made_library(server, *, empty=False):
    """A library on a server, which is dropped at the end; ``empty`` leaves out its model."""
    cluster = Cluster(Address("127.0.0.1", server.port, f"test_{uuid.uuid4().hex[:12]}"))
    if not empty:
        Store(cluster).use_model(*MODEL)
    try:
        yield cluster
    finally:
        if cluster.exists(cluster.address.name):
            cluster.client.run("drop_alias", cluster.address.name)
        for name in cluster.client.run("list_collections"):
            if name.startswith(cluster.address.name):
                cluster.client.run("drop_collection", name)
        cluster.close()
