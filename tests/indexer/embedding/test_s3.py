"""A real S3 server on loopback: moto's, through s3fs."""

import os
import tarfile
import urllib.request
from types import SimpleNamespace

import pytest

from fovea.search.errors import FoveaError

KEY, SECRET = "AKIAFOVEATESTKEY", "a-secret-that-nobody-shows"


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    made = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield SimpleNamespace(url=f"http://{host}:{port}")
    made.stop()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    """An empty bucket, and this process's access to it by environment alone."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    nowhere = str(tmp_path / "none")
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    asked(server, "reset")
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.mkdir("photos")
    yield store
    s3fs.S3FileSystem.clear_instance_cache()


def asked(server, what, data=b""):
    url, headers = f"{server.url}/moto-api/{what}", {"Content-Type": "text/plain"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(urllib.request.Request(url, data, headers, method="POST")).close()


def filled(bucket, photos):
    for name in ("a.png", "inner/d.png", "broken.jpg"):
        bucket.pipe(f"photos/2019/{name}", (photos / name).read_bytes())
    bucket.pipe("photos/2019/.hidden/b.png", (photos / "b.png").read_bytes())
    bucket.pipe("photos/2019/café #1? 100%.png", (photos / "b.png").read_bytes())
    bucket.pipe("photos/2019/notes.txt", b"")


def said(report):
    return [*report.problems, *report.failures]


def test_a_folder_of_a_bucket_is_embedded_once(embed, bucket, photos):
    filled(bucket, photos)
    report = embed("s3://photos/2019")
    assert (report.found, report.embedded, report.failed, report.problems) == (4, 3, 1, ())
    assert sorted(embed.names()) == ["a.png", "café #1? 100%.png", "d.png"]
    [failed] = embed.rows("failed")
    assert failed["image_path"] == "s3://photos/2019/broken.jpg" and failed["settled"]
    again = embed("s3://photos/2019")
    assert (again.embedded, again.failed, again.unchanged) == (0, 0, 4)


def test_shards_in_a_bucket_missing_damaged_and_whole(embed, bucket, photos, tmp_path):
    for number, names in ((0, ("a.png", "b.png")), (2, ("c.png", "inner/d.png"))):
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            for name in names:
                archive.add(photos / name, arcname=name)
        whole = (tmp_path / "x.tar").read_bytes()
        bucket.pipe(f"photos/{number}.tar", whole if number == 0 else whole[:2300])
    report = embed("s3://photos/{0..2}.tar")
    assert (report.embedded, report.shards) == (3, 1)
    reasons = {place: reason for place, reason in report.problems}
    assert reasons["s3://photos/1.tar"] == "unreadable: not there"
    assert "ends within" in reasons["s3://photos/2.tar"]
    again = embed("s3://photos/{0..0}.tar")
    assert (again.embedded, again.shards_unchanged) == (0, 1)


def test_a_list_of_objects_accounts_for_each(embed, bucket, photos, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    filled(bucket, photos)
    names = ["2019/a.png", "2019/none.png", "2019/broken.jpg"]
    names = [f"s3://photos/{name}" for name in names] + ["s3://nobucket/x.png"]
    pyarrow.parquet.write_table(pa.table({"url": names}), tmp_path / "list.parquet")
    bucket.put(str(tmp_path / "list.parquet"), "photos/list.parquet")
    report = embed("s3://photos/list.parquet")
    assert (report.embedded, report.failed) == (1, 3)
    reasons = {row["image_path"]: row["reason"] for row in embed.rows("failed")}
    assert reasons["s3://photos/2019/none.png"] == "unreadable: not there"
    assert reasons["s3://nobucket/x.png"] == "unreadable: not there"
    bucket.pipe("photos/2019/none.png", (photos / "c.png").read_bytes())
    again = embed("s3://photos/list.parquet")  # what was not there is tried again
    assert (again.embedded, again.unchanged) == (1, 2)


def test_a_refused_key_is_one_line_without_the_key(embed, server, bucket, photos, tmp_path):
    filled(bucket, photos)
    asked(server, "reset-auth", b"0")
    try:
        for source in ("s3://photos/2019", "s3://photos/{0..0}.tar"):
            [(place, reason)] = embed(source).problems
            assert place.startswith("s3://photos") and "\n" not in reason
            assert reason.startswith("unreadable: ") and "not there" not in reason
            assert KEY not in reason and SECRET not in reason
        with pytest.raises(FoveaError) as caught:
            embed("s3://photos/list.parquet")
        assert KEY not in str(caught.value) and SECRET not in str(caught.value)
    finally:
        asked(server, "reset-auth", b"inf")


def test_an_address_with_a_key_is_refused_without_showing_it(embed):
    for url in (f"s3://{KEY}:{SECRET}@photos/x.tar", f"s3://{SECRET}@photos/2019"):
        with pytest.raises(FoveaError, match="credentials") as caught:
            embed(url)
        assert SECRET not in str(caught.value)
    assert not embed.folder.exists()


def test_a_server_that_is_away_is_one_line(embed, bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    [(place, reason)] = embed("s3://photos/2019").problems
    assert place == "s3://photos/2019" and "\n" not in reason and SECRET not in reason
