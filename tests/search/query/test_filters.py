import math
import os
import unicodedata
from datetime import datetime
from fnmatch import fnmatchcase

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fovea.search.errors import QueryError
from fovea.search.library.facts.earth import distance_km
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.query.filters import FILTERS, FilterKind, allowed_images
from fovea.search.query.language import parse
from places import CHECKOUT

ROOT = b"/photos"
NS = 1_000_000_000


def made(number, path, width=40, height=30, *, taken_at=None, size=1000, camera=None, kind="JPEG",
         place=(None, None), modified="2021-05-04T10:00:00", damaged=None, lens=None):  # fmt: skip
    """An image with one file, and what the oracle below needs to know of it."""
    metadata = ImageMetadata(
        width,
        height,
        kind,
        1,
        taken_at,
        camera,
        lens,
        latitude=place[0],
        longitude=place[1],
        damaged=damaged,
    )
    seconds = datetime.fromisoformat(modified).timestamp()
    return number, os.fsencode(path), size, metadata, int(seconds * NS)


IMAGES = [
    made(1, "/photos/holidays/2019/beach.jpg", taken_at="2019-07-01T12:00:00", camera="Canon EOS"),
    made(2, "/photos/holidays/2020/IMG_1.heic", 30, 40, kind="HEIF", taken_at="2020-06-30T23:59:59"
    ),
    made(3, "/photos/IMG_2.png", 40, 40, kind="PNG", size=6_000_000, place=(48.2, 16.4)),
    made(4, "/photos/2019_notes/a%b_c.jpg", 5000, 3000, place=(48.25, 16.4),
         modified="2019-12-31T23:00:00"),
    made(5, "/photos/holidays2019/img_3.JPG", 41, 40, camera="NIKON D7", place=(-48.2, -179.99),
         damaged="the lower 40 % is missing", lens="NIKKOR Z 50mm f/1.8 S"),
    made(6, os.fsdecode(b"/photos/odd/\xff\xfe img.jpg"), None, None, kind=None),
]  # fmt: skip


@pytest.fixture(scope="module")
def filed(tmp_path_factory):
    """A library of the images above; the ids by their numbers."""
    with Library.open(tmp_path_factory.mktemp("filed"), create=True) as library:
        root = library.add_root(ROOT)
        contents, files = [], []
        for number, path, size, metadata, mtime_ns in IMAGES:
            digest = number.to_bytes(32, "big")
            contents.append(NewImage(digest, size, metadata))
            files.append(FileWrite(path, root.id, size, mtime_ns, digest))
        gone = (99).to_bytes(32, "big")
        contents.append(NewImage(gone, 1, ImageMetadata(40, 40, "JPEG")))
        files.append(FileWrite(b"/photos/holidays/2019/gone.jpg", root.id, 1, 1, gone))
        library.write_batch(WriteBatch(contents, files))
        library.mark_missing([b"/photos/holidays/2019/gone.jpg"])
        yield library


def found(library, query):
    ids = allowed_images(library, parse(query).filters).tolist()
    contents = dict(library.rows("SELECT id, hash FROM images"))
    return [int.from_bytes(contents[image_id]) for image_id in ids]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [1, 2, 3, 4, 5, 6]),
        ("in:holidays", [1, 2]),
        ("in:holidays/2019", [1]),
        ("in:/photos/holidays", [1, 2]),
        ("in:/holidays", []),
        ("in:2019", [1]),
        ("-in:holidays", [3, 4, 5, 6]),
        ("name:IMG_*", [2, 3, 5]),
        ("name:img_?.jpg", [5]),
        ("name:a%b", [4]),
        ("name:beach", [1]),
        ("on:2019", [1, 4]),
        ("on:2019-07-01", [1]),
        ("after:2019", [2, 3, 5, 6]),
        ("before:2020-06", [1, 4]),
        ("after:2020-06 before:2022", [3, 5, 6]),
        ("camera:canon", [1]),
        ("-camera:canon", [2, 3, 4, 5, 6]),
        ("lens:50MM", [5]),
        ('lens:"Nikkor  Z"', [5]),
        ("-lens:nikkor", [1, 2, 3, 4, 6]),
        ("format:heic", [2]),
        ("format:.HEICS", [2]),
        ("format:jpg", [1, 4, 5]),
        ("format:apng", [3]),
        ("is:portrait", [2]),
        ("is:landscape", [1, 4]),
        ("is:square", [3, 5]),
        ("-is:square", [1, 2, 4, 6]),
        ("is:damaged", [5]),
        ("-is:DAMAGED is:square", [3]),
        ("size:>10MP", [4]),
        ("size:>=6MB", [3]),
        ("size:<1MP", [1, 2, 3, 5]),
        ("near:48.2,16.4,1km", [3]),
        ("near:48.2,16.4,10km", [3, 4]),
        ("near:-48.2,179.99,5000m", [5]),
        ("-near:48.2,16.4,10km", [1, 2, 5, 6]),
        ("near:90,0,20000km", [3, 4, 5]),
        ('in:"odd"', [6]),
        ("in:/photos/od", []),
        ("name:\udcff\udcfe*", [6]),
        ("name:\udcff", [6]),
        ("camera:eos -before:2019 in:/photos", [1]),
    ],
)
def test_a_filter_leaves_what_meets_it(filed, query, expected):
    assert found(filed, query) == expected


ATOMS = st.sampled_from([
    "in:holidays", "name:*.jpg", "on:2019", "after:2020", "before:2020-07", "camera:o",
    "lens:50mm", "format:png", "is:landscape", "size:>1MP", "near:48,16,100km",
])  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(ATOMS, st.booleans()), max_size=4))
def test_filters_intersect_and_a_negated_one_is_the_complement(filed, atoms):
    everything = set(found(filed, ""))
    expected = everything
    for atom, negated in atoms:
        meets = set(found(filed, atom))
        expected = expected & (everything - meets if negated else meets)
    query = " ".join(f"{'-' if negated else ''}{atom}" for atom, negated in atoms)
    assert set(found(filed, query)) == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("IMGimg_*?%.123jphec", min_size=1, max_size=6).filter(lambda p: set(p) & set("*?")))
def test_names_match_as_in_a_shell_whatever_their_case(filed, pattern):
    names = {number: os.fsdecode(path).rsplit("/", 1)[1] for number, path, *_ in IMAGES}
    expected = [n for n, name in names.items() if fnmatchcase(name.lower(), pattern.lower())]
    assert found(filed, f'name:"{pattern}"') == expected


PLACES = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@given(PLACES, PLACES)
def test_distance_is_that_of_the_chord(here, there):
    a, b, c, d = map(math.radians, (*here, *there))
    one = math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)
    two = math.cos(c) * math.cos(d), math.cos(c) * math.sin(d), math.sin(c)
    chord = math.dist(one, two)
    assert distance_km(*here, *there) == pytest.approx(
        2 * 6371.0088 * math.asin(min(1, chord / 2)), abs=0.01, rel=1e-6
    )


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_accent_is_one_however_it_is_written(tmp_path, form):
    with Library.open(tmp_path, create=True) as library:
        root = library.add_root(ROOT)
        path = unicodedata.normalize(form, "/photos/München/Café.jpg").encode()
        write = FileWrite(path, root.id, 1, 1, b"h" * 32)
        library.write_batch(WriteBatch([NewImage(b"h" * 32, 1)], [write]))
        for query in ("in:München", "name:Café*", "name:café", "name:Café"):
            for typed in ("NFC", "NFD"):
                filters = parse(unicodedata.normalize(typed, query)).filters
                assert len(allowed_images(library, filters)) == 1, (query, typed)


def test_a_filter_needs_one_row_of_the_table(filed, monkeypatch):
    wide = FilterKind(
        read=lambda value: value if value.isdecimal() else None,
        condition=lambda value: ("width > ?", [int(value)]),
        examples=("wide:4000",),
        help="wider than so many pixels",
    )
    monkeypatch.setitem(FILTERS, "wide", wide)
    widths = {number: metadata.width for number, _, _, metadata, _ in IMAGES}
    assert found(filed, "wide:40") == [n for n, width in widths.items() if width and width > 40]
    assert found(filed, "-wide:40 name:img") == [2, 3, 6]
    query = parse("beach -wide:40")
    assert str(query) == "beach -wide:40" and parse(str(query)) == query
    with pytest.raises(QueryError, match="'x' does not fit wide:; write it as in wide:4000"):
        parse("wide:x")
    with pytest.raises(
        QueryError, match="Did you mean 'wide:'.*, near, place, text, tag, wide, like, sort"
    ):
        parse("width:40")


def test_the_page_on_queries_explains_each_filter():
    page = (CHECKOUT / "docs" / "queries.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.endswith(" |")]
    for kind in FILTERS.values():
        examples = ", ".join(f"`{example}`" for example in kind.examples)
        assert f"| {examples} | {kind.help} |" in rows
    kinds = page.partition(" kind: ")[2].partition("\n    sort ")[0]
    assert set(kinds.split()) == set(FILTERS)


def test_the_page_knows_each_filter():
    script = (CHECKOUT / "web" / "static" / "js" / "query" / "querytext.js").read_text("utf-8")
    listed = script.partition("export const FILTERS = [")[2].partition("];")[0]
    assert [word for word in listed.split('"')[1::2] if word.isalpha()] == list(FILTERS)
