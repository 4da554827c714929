"""XMP sidecars: what is written, what is left alone, and what comes back."""

import json
import os
import shutil
import subprocess
import tracemalloc

import pytest

from fovea.indexer.decoding.embedded_text import parse_xmp
from fovea.indexer.sidecars.exchange import read_sidecars, write_sidecars
from fovea.indexer.sidecars.packet import Sidecar, is_ours, parse_sidecar, sidecar_bytes
from fovea.search.errors import LibraryError
from fovea.search.library.marks import contents, mark, marked
from fovea.search.tags.scoring import refresh, suggestions
from fovea.search.tags.stored import examples_of, forget_tag, say, tags

ODD = ("Rex", "日本 & <dogs>", "Familie/Kind", 'a "quoted" word')


@pytest.fixture
def hashes(colour_library):
    """Name -> content of the eight pictures; red has tags and is a favourite, blue a tag."""
    rows = colour_library.rows("SELECT path, image_id FROM files")
    ids = {os.path.basename(path).decode()[:-4]: image_id for path, image_id in rows}
    known = contents(colour_library, ids.values())
    found = {name: known[image_id] for name, image_id in ids.items()}
    for word in ODD:
        say(colour_library, word, yes=[found["red"]])
    say(colour_library, "sea", yes=[found["blue"]], no=[found["red"]])
    mark(colour_library, [found["red"]], "favourite", True)
    return found


def test_a_packet_comes_back(tmp_path):
    for sidecar in (
        Sidecar(("Tiere", "Tiere/Rex")),
        Sidecar(ODD, 5),
        Sidecar(("x",)),
        Sidecar((), 5),
        Sidecar(),
    ):
        data = sidecar_bytes(sidecar)
        assert parse_sidecar(data) == sidecar and is_ours(data) and not is_ours(data + b" ")


def test_sidecars_come_back(colour_library, photos, hashes, tmp_path):
    out = tmp_path / "out"
    assert write_sidecars(colour_library, out).pictures == 2
    assert sorted(p.name for p in out.rglob("*.*")) == ["blue.png.xmp", "red.png.xmp"]
    assert sorted(p.name for p in photos.iterdir()) == sorted(f"{name}.png" for name in hashes)
    for tag in tags(colour_library):
        forget_tag(colour_library, tag.name)
    mark(colour_library, [hashes["red"]], "favourite", False)
    assert read_sidecars(colour_library, out).pictures == 2
    assert {tag.name for tag in tags(colour_library)} == {*ODD, "sea"}
    assert examples_of(colour_library, "rex") == {hashes["red"]: True}
    assert [content for content, _ in marked(colour_library, "favourite")] == [hashes["red"]]


def test_a_tag_that_is_written_otherwise_is_still_that_tag(colour_library, hashes, tmp_path):
    say(colour_library, "Mum | Dad", yes=[hashes["lime"]])
    write_sidecars(colour_library, tmp_path / "out")
    before = tags(colour_library)
    read_sidecars(colour_library, tmp_path / "out")
    assert [tag.name for tag in tags(colour_library)] == [tag.name for tag in before]


def test_nothing_is_written_under_a_root_unless_asked_for(colour_library, photos, hashes):
    before = sorted(photos.iterdir())
    for folder in (photos, photos / "sidecars", photos / ".." / "photos" / "x"):
        with pytest.raises(LibraryError, match="lies in the indexed folder"):
            write_sidecars(colour_library, folder)
    assert sorted(photos.iterdir()) == before
    assert write_sidecars(colour_library, None).pictures == 2
    assert (photos / "red.png.xmp").exists()


def test_teaching_labels_suggestions_and_imports_write_nothing_there(
    colour_library, photos, hashes, tmp_path
):
    def seen():
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in photos.rglob("*")}

    before = seen()
    say(colour_library, "warm", yes=[hashes[name] for name in ("red", "maroon", "magenta")])
    refresh(colour_library)
    assert suggestions(colour_library, "warm").likely
    write_sidecars(colour_library, tmp_path / "out", found=True)
    read_sidecars(colour_library, tmp_path / "out")
    read_sidecars(colour_library, None)
    assert seen() == before


def test_what_other_programs_wrote_is_left_as_it_is(colour_library, photos, hashes):
    theirs = sidecar_bytes(Sidecar(("theirs",), 3)).replace(b'"fovea"', b'"XMP Core 6.0"')
    (photos / "red.png.xmp").write_bytes(theirs)
    os.mkfifo(photos / "blue.png.xmp")
    report = write_sidecars(colour_library, None)
    assert (report.pictures, report.left, report.failed) == (0, 1, 1)
    assert (photos / "red.png.xmp").read_bytes() == theirs
    assert read_sidecars(colour_library, None).failed == 1
    assert examples_of(colour_library, "theirs") == {hashes["red"]: True}
    (photos / "red.png.xmp").write_bytes(sidecar_bytes(Sidecar(("old",))))
    assert write_sidecars(colour_library, None).pictures == 1, "fovea's own is written again"
    assert not list(photos.glob(".*.part"))


def test_not_even_a_changed_space_in_its_own_file_is_overwritten(colour_library, hashes, tmp_path):
    write_sidecars(colour_library, tmp_path / "out")
    file = next((tmp_path / "out").rglob("red.png.xmp"))
    added = file.read_bytes().replace(b"<xmp:Rating>", b"<xmp:Label>mine</xmp:Label><xmp:Rating>")
    file.write_bytes(added)
    report = write_sidecars(colour_library, tmp_path / "out")
    assert (report.pictures, report.left) == (1, 1) and file.read_bytes() == added


def test_links_in_the_folder_lead_nothing_into_a_root(colour_library, photos, hashes, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / photos.name).symlink_to(photos)
    before = sorted(photos.iterdir())
    report = write_sidecars(colour_library, out)
    assert (report.pictures, report.failed) == (0, 2) and sorted(photos.iterdir()) == before


def described(fields, attributes=""):
    return f"""<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
    <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
    xmlns:digiKam="http://www.digikam.org/ns/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    {attributes}>{fields}</rdf:Description></rdf:RDF></x:xmpmeta>""".encode()


def listed(name, kind, *words):
    items = "".join(f"<rdf:li>{word}</rdf:li>" for word in words)
    return f"<{name}><rdf:{kind}>{items}</rdf:{kind}></{name}>"


def test_what_digikam_and_lightroom_write_is_read():
    """Hierarchies by both, the last level or all levels as keywords, the rating as an attribute."""
    fields = (
        listed("digiKam:TagsList", "Seq", "Tiere/Hunde/Rex", "Orte/里斯本")
        + listed("lr:hierarchicalSubject", "Bag", "Tiere|Hunde|Rex", "Orte|里斯本")
        + listed("dc:subject", "Bag", "Rex", "里斯本", "alone")
    )
    found = parse_sidecar(described(fields, 'xmp:Rating="5"'))
    assert found == Sidecar(("Tiere/Hunde/Rex", "Orte/里斯本", "alone"), 5)
    fields = listed("lr:hierarchicalSubject", "Bag", "Tiere", "Tiere|Rex")
    fields += listed("dc:subject", "Bag", "Tiere", "Rex")
    assert parse_sidecar(described(fields)) == Sidecar(("Tiere/Rex",))
    assert parse_sidecar(described(listed("dc:subject", "Bag", "a/b"))) == Sidecar(("a/b",))


@pytest.mark.parametrize("name", ["red.png.xmp", "red.xmp"])
def test_both_names_of_sidecars_are_read(colour_library, photos, hashes, name):
    (photos / name).write_bytes(described(listed("dc:subject", "Bag", "theirs")))
    assert read_sidecars(colour_library, None).pictures == 1
    assert examples_of(colour_library, "theirs") == {hashes["red"]: True}


@pytest.mark.parametrize(
    "data",
    [
        sidecar_bytes(Sidecar((), 5)).replace(b"<xmp:Rating>5", b"<xmp:Rating>nan"),
        sidecar_bytes(Sidecar((), 5)).replace(b"<xmp:Rating>5", b"<xmp:Rating>1e999"),
        sidecar_bytes(Sidecar(("w" * 61,))),
    ],
)
def test_values_that_cannot_be_used_are_left_out(data):
    assert parse_sidecar(data) == Sidecar()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x00" * 99, b"<x", b"<x>" * 10_000, sidecar_bytes(Sidecar(("a",)))[:200],
        b'<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><x>&c;</x>',
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
    ],
)  # fmt: skip
def test_hostile_sidecars_are_not_read(data):
    assert parse_sidecar(data) is None


def peak_of(read, data):
    """Return what a call has in memory at most, in bytes."""
    tracemalloc.start()
    try:
        read(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def nested(depth, begin, end, items):
    words = "".join(f"<rdf:li>{number}</rdf:li>" for number in range(items))
    return described(begin * depth + f"<rdf:Bag>{words}</rdf:Bag>" + end * depth)


@pytest.mark.parametrize("read", [parse_sidecar, parse_xmp])
@pytest.mark.parametrize(
    "data",
    [
        nested(1_000, "<dc:subject>", "</dc:subject>", 3_000),
        nested(150, "<rdf:Description><dc:subject>", "</dc:subject></rdf:Description>", 300),
        nested(150, "<rdf:Description><dc:title>", "</dc:title></rdf:Description>", 300),
        described(listed("lr:hierarchicalSubject", "Bag", "|".join("a" * 3_000))),
    ],
    ids=["subjects", "descriptions", "titles", "levels"],
)
def test_nesting_multiplies_nothing(read, data):
    """Collecting the items at each depth took more than 24 MB; of titles, time alone."""
    assert peak_of(read, data) < 8 << 20


def test_only_the_items_of_a_list_itself_are_its_keywords():
    inner = listed("dc:creator", "Seq", "nobody's keyword")
    fields = f"<dc:subject><rdf:Bag><rdf:li>one{inner}</rdf:li></rdf:Bag>{inner}</dc:subject>"
    fields += listed("dc:subject", "Seq", "two") + listed("dc:subject", "Alt", "three")
    assert parse_sidecar(described(fields)) == Sidecar(("one", "two", "three"))
    assert parse_xmp(described(fields)).keywords == ("one", "two", "three")


def test_of_a_file_a_thousand_keywords_are_read():
    words = [f"w{number}" for number in range(1_500)]
    fields = listed("dc:subject", "Bag", *words[:700]) + listed("dc:subject", "Bag", *words[700:])
    assert parse_sidecar(described(fields)) == Sidecar(tuple(words[:1_000]))


def test_hidden_pictures_have_none(colour_library, hashes, tmp_path):
    mark(colour_library, [hashes["red"]], "hidden", True)
    assert write_sidecars(colour_library, tmp_path / "out").pictures == 1


exiftool = pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed")


@exiftool
def test_exiftool_reads_them_and_what_it_changes_is_kept(colour_library, hashes, tmp_path):
    out = tmp_path / "out"
    write_sidecars(colour_library, out)
    file = next(out.rglob("red.png.xmp"))
    fields = ["Subject", "HierarchicalSubject", "TagsList", "Rating"]
    options = [f"-{field}" for field in (*fields, "warning", "error")]
    [said] = json.loads(subprocess.check_output(["exiftool", "-validate", "-json", *options, file]))
    assert set(said["Subject"]) == {"Kind" if word == "Familie/Kind" else word for word in ODD}
    assert set(said["HierarchicalSubject"]) == {word.replace("/", "|") for word in ODD}
    assert set(said["TagsList"]) == set(ODD)
    assert said["Rating"] == 5 and not {"Warning", "Error"} & set(said)
    words = ["-Subject+=two", "-Rating=3", "-overwrite_original"]
    subprocess.run(["exiftool", "-q", *words, file], check=True)
    assert parse_sidecar(file.read_bytes()) == Sidecar((*sorted(ODD, key=str.casefold), "two"), 3)
    changed = file.read_bytes()
    assert write_sidecars(colour_library, out).left == 1 and file.read_bytes() == changed


@exiftool
def test_what_exiftool_writes_is_read(colour_library, photos, hashes):
    file = photos / "red.png.xmp"
    words = [
        "-Subject=日本 & <dogs>",
        "-Subject=one",
        "-HierarchicalSubject=Tiere|Rex",
        "-Rating=5",
    ]
    charset = ["-charset", "filename=utf8", "-charset", "utf8"]
    subprocess.run(["exiftool", "-q", *charset, *words, file], check=True)
    assert read_sidecars(colour_library, None).pictures == 1
    names = {
        tag.name
        for tag in tags(colour_library)
        if hashes["red"] in examples_of(colour_library, tag.name)
    }
    assert {"日本 & <dogs>", "one", "Tiere/Rex"} <= names and "Rex" in names
