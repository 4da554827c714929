import io
import os
import tarfile

import pytest

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.embedding import on_ray
from fovea.indexer.embedding.items import Item, Result
from fovea.indexer.embedding.shards import BrokenShard, _pax, expand, members
from fovea.search.errors import FoveaError

KINDS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "folder/" * 40 + "long.jpg"


def tar(files, kind="pax"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=KINDS[kind]) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def read(data, limits=None, known=frozenset()):
    found = members("s.tar", io.BytesIO(data), limits or Limits(), known)
    return [(item.name, item.data, item.refusal) for item in found]


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_members_come_as_they_are_whatever_the_format(kind):
    data = tar([("1.jpg", b"one"), (LONG, b"x" * 600), ("1.json", b"{}"), ("2.PNG", b"")], kind)
    assert read(data) == [
        (b"s.tar/1.jpg", b"one", None),
        (b"s.tar/" + LONG.encode(), b"x" * 600, None),
        (b"s.tar/2.PNG", b"", None),
    ]


def test_links_folders_and_devices_are_no_pictures():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("evil.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("good.jpg")
        archive.addfile(info)
    assert [name for name, _, _ in read(stream.getvalue())] == [b"s.tar/good.jpg"]


def test_a_name_that_leads_elsewhere_stays_text():
    [(name, data, _)] = read(tar([("../../etc/x.jpg", b"1")]))
    assert (name, data) == (b"s.tar/../../etc/x.jpg", b"1")


def test_a_member_that_is_too_large_is_not_read():
    data = tar([("big.jpg", b"x" * 5000), ("small.jpg", b"y")])
    big, small = read(data, Limits(file_bytes=1000))
    assert big[1] is None and big[2].startswith("too large")
    assert small[1] == b"y"


def test_what_is_known_is_left_out_and_a_name_counts_once():
    data = tar([("1.jpg", b"one"), ("1.jpg", b"two"), ("2.jpg", b"two"), ("1.jpg", b"four")])
    [first, again, second, longer] = members("s.tar", io.BytesIO(data), Limits())
    assert (first.data, second.data, longer.data) == (b"one", b"two", b"four")
    assert again.data is None and "name and size" in again.refusal
    rest = members("s.tar", io.BytesIO(data), Limits(), frozenset({first.id}))
    assert [item.id for item in rest] == [again.id, second.id, longer.id]
    rest = members("s.tar", io.BytesIO(data), Limits(), frozenset({first.id, again.id}))
    assert [item.id for item in rest] == [second.id, longer.id]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (tar([("1.jpg", b"x" * 2000)])[:1500], "within a member"),
        (tar([("1.jpg", b"x" * 2000)])[:300], "within a member"),
        (b"x" * 5000, "no header"),
        (b"", "is empty"),
        (tar([("1.jpg", b"x" * 2000)])[:2560], "without the blocks of zeros"),
        (tar([("1.jpg", b"x" * 2000)])[:3072], "without the blocks of zeros"),
        (tar([("1.jpg", b"x")])[:1024] + b"\0" * 512 + tar([("2.jpg", b"x")]), "behind them"),
        (tar([("1.jpg", b"x")]) + tar([("2.jpg", b"x")]), "behind them"),
    ],
)
def test_a_broken_shard_says_why(data, why):
    with pytest.raises(BrokenShard, match=why):
        read(data)


def test_a_header_may_not_declare_whatever_it_likes():
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(BrokenShard, match="a header of"):
        read(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2000)
    for record in (b"9999999999999999999 path=x\n", b"no number=x\n", b"3 =\n"):
        info.size = len(record)
        with pytest.raises(BrokenShard, match="pax header"):
            read(info.tobuf(tarfile.GNU_FORMAT) + record.ljust(512, b"\0"))


class Counted(bytes):
    """Bytes that count how many of them are copied."""

    copied = 0

    def __getitem__(self, key):
        found = Counted(super().__getitem__(key))
        Counted.copied += len(found)
        return found

    def partition(self, mark):
        found = super().partition(mark)
        Counted.copied += len(self)
        return found


def test_a_header_of_many_records_is_not_copied_for_each():
    data = Counted(b"6 a=b\n" * 5000 + b"11 path=xy\n")
    assert _pax(data) == {b"a": b"b", b"path": b"xy"}
    assert Counted.copied <= 20 * len(data)


def test_patterns_stand_for_shards_in_order():
    assert expand("s3://b/{08..11}.tar") == [f"s3://b/{n}.tar" for n in ("08", "09", "10", "11")]
    assert expand("{1..2}/{0..1}.tar") == ["1/0.tar", "1/1.tar", "2/0.tar", "2/1.tar"]
    assert expand("plain.tar") == ["plain.tar"]


@pytest.mark.parametrize("pattern", ["{5..1}.tar", "{a..b}.tar", "{0..9.tar", "{0..99999999}.tar"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(FoveaError):
        expand(pattern)


def packed(path, *files, cut=False):
    with tarfile.open(path, "w") as archive:
        for file in files:
            archive.add(file, arcname=file.name)
        end = archive.offset
    if cut:
        os.truncate(path, end)
    return path


def test_a_shard_that_still_grows_is_read_again(embed, photos, tmp_path):
    place = tmp_path / "0.tar"
    for files, cut, counts in [
        ((), True, (0, 0)),
        (("a.png",), True, (1, 0)),
        (("a.png", "b.png"), False, (1, 1)),
    ]:
        packed(place, *(photos / name for name in files), cut=cut)
        report = embed(place)
        assert (report.embedded, report.shards) == counts
        assert len(report.problems) == cut
    assert sorted(embed.names()) == ["a.png", "b.png"]
    assert embed(place).shards_unchanged == 1


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_whole_shard_that_has_changed_is_read_again(embed, photos, tmp_path, is_remote):
    files = [photos / name for name in ("a.png", "b.png", "c.png")]
    place, source = tmp_path / "0.tar", tmp_path / "{0..0}.tar"
    if is_remote:
        store = pytest.importorskip("fsspec", reason="fsspec is not installed").filesystem("memory")
        source = "memory://changing/{0..0}.tar"

    def run(*names):
        packed(place, *names)
        if is_remote:
            store.pipe("/changing/0.tar", place.read_bytes())
        return embed(source)

    assert run(*files[:2]).shards == 1
    files[2].write_bytes(files[2].read_bytes() + b"\0" * 20_000)  # so that its size differs
    report = run(*files)
    assert (report.embedded, report.shards, report.shards_unchanged) == (1, 1, 0)
    assert embed(source).shards_unchanged == 1
    assert sorted(embed.names()) == ["a.png", "b.png", "c.png"]
    os.remove(place)
    if not is_remote:  # as after a move of what is done
        assert embed(source).shards_unchanged == 1


def test_a_shard_of_the_same_size_and_another_time_is_read_again(embed, photos, tmp_path):
    place = packed(tmp_path / "0.tar", photos / "a.png")
    embed(place)
    packed(place, photos / "a.png", photos / "b.png")  # tar fills both up to the same size
    os.utime(place, (1e9, 1e9))
    assert embed(place).embedded == 1


def test_a_shard_whose_name_is_not_text_is_embedded_once(embed, photos, tmp_path):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tar")
    try:
        packed(place, photos / "a.png", cut=True)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert embed(place).embedded == 1
    packed(place, photos / "a.png", photos / "broken.jpg")
    report = embed(place)
    assert (report.embedded, report.failed, report.shards) == (0, 1, 1)
    assert embed(place).shards_unchanged == 1
    [row] = embed.rows()
    assert row["shard"].endswith("caf\\udce9.tar")


def test_a_decoder_holds_few_pictures_and_few_bytes(monkeypatch):
    monkeypatch.setattr(on_ray, "STREAMED", 100)
    monkeypatch.setattr(on_ray, "CHUNK", 3)
    sizes = [60, 40, 1, 500, 99, None, 1, 1, 0, 0]
    entries = [Item(b"%d" % at, data=None if size is None else b"x" * size) for at, size in
               enumerate(sizes)]  # fmt: skip
    streamed = [None, *entries[:4], None, *entries[4:], Result(entries[0], "gone")]
    found = list(on_ray.chunks(iter(streamed)))
    assert [one for chunk in found for one in chunk] == [one for one in streamed if one]
    assert [len(chunk) for chunk in found] == [2, 1, 1, 3, 3, 1]
