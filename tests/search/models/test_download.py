import errno
import hashlib
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from fovea.search.errors import ModelDamaged, ModelError, ModelUnreachable
from fovea.search.models.download import Patience, answers, download
from loopback import serving

CONTENT = os.urandom(1 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(first=1.0, silence=0.3, tries=3)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serving() as served:
        served.files["/model.pt"] = CONTENT
        yield served


def fetched(server, folder, **options):
    options = {"sha256": SHA256, "patience": QUICK} | options
    return download(f"{server.url}/model.pt", folder / "model.pt", **options)


def test_a_file_comes_whole_and_tells_its_progress(server, tmp_path):
    told = []
    path = fetched(server, tmp_path, progress=lambda done, total: told.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.pt", "model.pt.lock"]


def test_a_file_that_is_there_is_not_asked_for(server, tmp_path):
    (tmp_path / "model.pt").write_bytes(CONTENT)
    fetched(server, tmp_path)
    assert server.asked == []


def test_a_damaged_file_that_is_there_is_fetched_again(server, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"damaged")
    assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_a_download_goes_on_where_an_earlier_one_ended(server, tmp_path):
    (tmp_path / "model.pt.part").write_bytes(CONTENT[:400_000])
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [("/model.pt", "bytes=400000-")]


def test_a_kept_part_that_is_whole_needs_no_network(server, tmp_path):
    (tmp_path / "model.pt.part").write_bytes(CONTENT)
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == []


def test_a_server_without_ranges_sends_all_of_it_again(server, tmp_path):
    server.heeds_range = False
    (tmp_path / "model.pt.part").write_bytes(CONTENT[:400_000])
    assert fetched(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("kept", [b"another file's beginning", CONTENT + b"and more"])
def test_a_kept_part_of_another_file_is_dropped(server, tmp_path, kept):
    (tmp_path / "model.pt.part").write_bytes(kept)
    assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_a_connection_that_drops_is_taken_up_again(server, tmp_path):
    server.cut_after, server.cuts = 300_000, 3
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[0] == ("/model.pt", None)
    assert [wanted for _, wanted in server.asked[1:]] == [
        "bytes=300000-",
        "bytes=600000-",
        "bytes=900000-",
    ]


def test_a_download_that_stalls_is_taken_up_again(server, tmp_path):
    server.stall_after, server.stalls = 500_000, 1
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_download_that_stalls_for_good_ends_and_keeps_what_came(server, tmp_path):
    server.stall_after, server.stalls = 0, 99
    (tmp_path / "model.pt.part").write_bytes(CONTENT[:1000])
    with pytest.raises(ModelUnreachable, match="does not answer"):
        fetched(server, tmp_path)
    assert (tmp_path / "model.pt.part").read_bytes() == CONTENT[:1000]


def test_a_trickle_counts_as_silence(server, tmp_path):
    server.trickles = "body"
    with pytest.raises(ModelUnreachable, match="keeps stopping .*bytes in"):
        fetched(
            server, tmp_path, patience=Patience(first=1.0, silence=0.3, slowest=50_000, tries=0)
        )
    assert server.asked == [("/model.pt", None)]


def test_a_disk_without_room_is_told_before_anything_is_written(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1_000_000))
    with pytest.raises(ModelError, match="1 MB are needed, and 1 MB are free; make room") as caught:
        fetched(server, tmp_path)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt.lock"]
    (tmp_path / "model.pt.part").write_bytes(CONTENT[:100_000])  # then the rest fits
    assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_what_a_url_asks_with_is_not_told(server, tmp_path):
    with pytest.raises(ModelDamaged) as caught:
        download(f"{server.url}/model.pt?signature=secret", tmp_path / "a", sha256="0" * 64)
    assert "/model.pt has the SHA-256" in str(caught.value) and "secret" not in str(caught.value)


def test_a_wrong_checksum_is_told_and_nothing_is_kept(server, tmp_path):
    with pytest.raises(ModelDamaged, match="has the SHA-256") as caught:
        fetched(server, tmp_path, sha256="0" * 64)
    assert not isinstance(caught.value, ModelUnreachable)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt.lock"]


def test_a_url_without_the_file_is_told(server, tmp_path):
    with pytest.raises(ModelError, match="404 Not Found"):
        download(f"{server.url}/other", tmp_path / "other", sha256=SHA256, patience=QUICK)


def test_a_server_in_trouble_counts_as_unreachable(server, tmp_path):
    server.status = 503
    with pytest.raises(ModelUnreachable, match="503"):
        fetched(server, tmp_path)


def test_a_server_that_says_nothing_is_given_up(server, tmp_path):
    server.wait = 3600
    with pytest.raises(ModelUnreachable, match="nothing arrived within|timed out"):
        fetched(server, tmp_path)


def test_a_name_that_hangs_is_given_up(tmp_path, monkeypatch):
    released = threading.Event()

    def hang(*args, **options):
        released.wait()
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(ModelUnreachable, match="models.example does not answer"):
        download("http://models.example/a", tmp_path / "a", sha256=SHA256, patience=QUICK)
    released.set()


def test_a_refused_connection_is_unreachable(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a"
        with pytest.raises(ModelUnreachable, match="127.0.0.1 does not answer"):
            download(url, tmp_path / "a", sha256=SHA256)
        assert not answers(url, 1.0)


def test_any_answer_is_an_answer(server):
    assert answers(server.url, 10.0)


def test_a_server_that_says_nothing_does_not_answer(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: released.wait() or [])
    assert not answers("http://hub.example", 0.5)
    released.set()


def test_two_downloads_of_one_file_do_not_mix(server, tmp_path):
    server.stall_after, server.stalls = 500_000, 1
    first = threading.Thread(target=fetched, args=(server, tmp_path))
    first.start()
    while not server.asked:
        time.sleep(0.01)
    with pytest.raises(ModelError, match="another fovea is downloading"):
        fetched(server, tmp_path)
    first.join()
    assert (tmp_path / "model.pt").read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made_is_told(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write"):
        fetched(server, tmp_path / "file")
