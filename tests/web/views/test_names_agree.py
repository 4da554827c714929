"""Plain words, ``name:``, ``in:`` and the menu of folders agree on what is one name."""

import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fovea.search.library.rows import FileWrite, WriteBatch
from fovea.search.query.filename_search import named_images
from fovea.search.query.filters import allowed_images
from fovea.search.query.language import Filter

# Each letter with spellings that mean the same; none of them is a part of another one.
LETTERS = {
    "a": ["a", "A", "ａ", "Ａ", "á", "A\u0301"],
    "ss": ["ß", "ss", "SS", "ẞ", "ſs"],
    "i": ["i", "I", "İ", "ı", "ï", "i\u200d"],
    "e": ["e", "ệ", "E\u0323\u0302", "é"],
    "sigma": ["σ", "ς", "Σ"],
    "omega": ["ω", "Ω", "ώ", "Ω\u0301", "\u2126"],
    "zhe": ["ж", "Ж"],
    "short i": ["й", "Й", "и\u0306"],
    "ga": ["ガ", "カ\u3099", "ｶﾞ"],
    "ka": ["カ", "ｶ"],
    "han": ["한", "\u1112\u1161\u11ab"],
    "ra": ["라", "\u1105\u1161"],
    "ba": ["ب", "\ufe91", "\ufe90", "ب\u064e", "بـ"],
    "lam": ["ل", "\ufedf"],
    "qa": ["\u0958", "क\u093c"],
    "hi": ["हि"],
    "cat": ["猫"],
    "two": ["2", "２", "②"],
}
WORD = st.lists(st.sampled_from(list(LETTERS)), min_size=1, max_size=4)


@st.composite
def spelled(draw, word):
    return "".join(draw(st.sampled_from(LETTERS[letter])) for letter in word)


def contains(word, part):
    return any(word[at : at + len(part)] == part for at in range(len(word)))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_the_four_ways_agree(client, app, data):
    library = app.extensions["fovea"].library
    [root] = library.roots()
    hashes = library.rows("SELECT hash, id FROM images ORDER BY id")
    wanted = data.draw(WORD)
    places = {}  # image -> folder, name, as words and as spelled
    files = []
    for (digest, image_id), letter in zip(hashes[:6], "uvwxyz", strict=False):
        words = [data.draw(st.just(wanted) | WORD) for _ in range(2)]
        folder, name = (data.draw(spelled(word)) for word in words)
        places[image_id] = (*words, folder, name)
        path = root.path + f"/{folder}/{name}.{letter}.jpg".encode()
        files.append(FileWrite(path, root.id, 1, 1, digest))
    query = data.draw(spelled(wanted))
    library.write_batch(WriteBatch(files=files))
    try:

        def chosen(*filters):
            return set(allowed_images(library, filters).tolist())

        below = {image for image, (folder, *_) in places.items() if folder == wanted}
        named = {image for image, (_, name, *_) in places.items() if contains(name, wanted)}
        assert chosen(Filter("in", query)) == below
        assert chosen(Filter("in", f"{query}/")) == below
        assert chosen(Filter("name", f"*{query}*.jpg")) == named
        assert named <= chosen(Filter("name", query))
        whole = {image for image in named if places[image][1] == wanted}
        assert chosen(Filter("name", f"{query}.?.*")) == whole
        by_words = set(named_images(library, query, 100)) & set(places)
        assert whole | below <= by_words
        for image in by_words:
            assert any(contains(word, wanted) for word in places[image][:2])
        menu = client.get("/api/facets").json["folders"]
        composed = {unicodedata.normalize("NFC", folder) for *_, folder, _ in places.values()}
        listed = [entry["path"] for entry in menu if entry["path"].encode() != root.path]
        assert sorted(unicodedata.normalize("NFC", path.rpartition("/")[2]) for path in listed) == (
            sorted(composed)
        )
        for entry in menu:
            for form in ("NFC", "NFD"):
                path = unicodedata.normalize(form, entry["path"])
                assert len(chosen(Filter("in", path))) == entry["count"]
        assert {path for path in listed} <= {
            f"{root.path.decode()}/{folder}" for *_, folder, _ in places.values()
        }
    finally:
        library.delete_files(file.path for file in files)


@pytest.mark.parametrize("forms", [("NFC", "NFD", "NFD"), ("NFD", "NFC", "NFC")])
def test_folders_that_differ_in_form_only_are_one_entry(client, app, forms):
    library = app.extensions["fovea"].library
    [root] = library.roots()
    hashes = [digest for (digest,) in library.rows("SELECT hash FROM images ORDER BY id")]
    parts = ("여행", "Château"), ("여행", "Château"), ("여행", "chateau")
    for digest, form, (outer, inner) in zip(hashes, forms, parts, strict=False):
        other = "NFC" if form == "NFD" else "NFD"
        folder = f"{unicodedata.normalize(form, outer)}/{unicodedata.normalize(other, inner)}"
        path = root.path + f"/{folder}/x.jpg".encode()
        library.write_batch(WriteBatch(files=[FileWrite(path, root.id, 1, 1, digest)]))
    counts = {}
    for entry in client.get("/api/facets").json["folders"]:
        counts[unicodedata.normalize("NFC", entry["name"])] = entry["count"]
        query = {"q": f'in:"{entry["path"]}"'}
        assert client.get("/api/search", query_string=query).json["total"] == entry["count"]
    assert counts == {
        "photos": 8,
        "photos/여행": 3,
        "photos/여행/Château": 2,  # both, however they are written
        "photos/여행/chateau": 1,  # another folder
    }
    assert client.get("/api/search", query_string={"q": "in:chateau"}).json["total"] == 3
