import base64
import http.client
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import ExitStack, closing, contextmanager

import pytest
from click.testing import CliRunner
from PIL import Image

from browsing import indexed
from fovea.cli import cli
from fovea.web.serving import connections
from fovea.web.serving.request_limits import AT_ONCE
from fovea.web.serving.security import outward_address
from fovea.web.serving.server import THREADS
from fovea.web.views.exports import ARCHIVES
from places import CHECKOUT


@contextmanager
def serving(library, *options, **limits):
    """``fovea serve`` in a process of its own: the process, and the address that it prints.

    ``limits`` are numbers of ``connections`` and ``server`` to set first.
    """
    code = "import fovea.cli\nfrom fovea.web.serving import connections, server\n"
    for name, value in limits.items():
        place = "connections" if hasattr(connections, name) else "server"
        code += f"assert {place}.{name}; {place}.{name} = {value}\n"
    command = [sys.executable, "-u", "-c", f"{code}fovea.cli.main()", "serve"]
    command += ["--port", "0", "--no-browser"]
    process = subprocess.Popen(
        [*command, "--library", str(library), *options],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        found = re.findall(r"http://\S+", line)
        assert found, (line, process.stderr.read())
        yield process, found[-1]
    finally:
        process.kill()
        process.communicate()


def asked(address, path="/health", method="GET", body=None, headers=None):
    connection = http.client.HTTPConnection(address.split("/")[2], timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server of an empty library, which it has made."""
    library = tmp_path_factory.mktemp("served") / "library"
    with serving(library) as (_, address):
        assert (library / "library.db").is_file()
        yield address


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library of one picture, whose file is larger than what the system sends ahead."""
    folder = tmp_path_factory.mktemp("large")
    Image.new("RGB", (4096, 4096), "red").save(folder / "red.bmp")  # 48 MiB
    return indexed(tmp_path_factory.mktemp("indexed") / "library", folder)


@pytest.fixture(scope="module")
def searching(library):
    """The address of a server of that library."""
    with serving(library) as (_, address):
        yield address


def test_it_listens_on_this_machine_alone_and_asks_for_no_token(server):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server)
    assert asked(server) == (200, b'{"status":"ok"}\n')


def test_a_foreign_name_is_refused(server):
    status, _ = asked(server, headers={"Host": "evil.example"})
    assert status == 421


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(tmp_path, number):
    with serving(tmp_path / "library") as (process, address):
        assert asked(address)[0] == 200
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "Traceback" not in err
        assert err.splitlines()[-1] == "fovea: stopped"


def test_a_port_in_use_is_one_clear_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ["--library", str(tmp_path / "library"), "--port", str(port), "--no-browser"]
        result = CliRunner().invoke(cli, ["serve", *options])
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: port {port} of 127.0.0.1 is used by another program; "
        f"choose another one: fovea serve --port {port + 1}\n"
    )


def test_an_address_of_another_machine_is_one_clear_line(tmp_path):
    options = ["--library", str(tmp_path / "library"), "--host", "203.0.113.7", "--no-browser"]
    result = CliRunner().invoke(cli, ["serve", *options])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: 203.0.113.7 is not an address of this machine")


def test_a_folder_that_is_none_is_refused_before_anything_is_made(tmp_path):
    options = ["--library", str(tmp_path / "library"), "--no-browser"]
    result = CliRunner().invoke(cli, ["serve", str(tmp_path / "nothing"), *options])
    assert result.exit_code == 1
    assert "nothing is not a folder" in result.stderr
    assert not (tmp_path / "library").exists()


def test_another_address_prints_a_token_once_and_says_who_will_see_the_photos(tmp_path):
    with serving(tmp_path / "library", "--host", "0.0.0.0") as (process, address):
        port = address.split("/")[2].rpartition(":")[2]
        token = address.partition("?token=")[2]
        assert len(token) >= 32
        reached = outward_address()
        assert reached is None or address == f"http://{reached}:{port}/?token={token}"
        own = f"http://127.0.0.1:{port}/"
        assert asked(own)[0] == 401
        assert asked(own, headers={"Authorization": f"Bearer {token}"})[0] == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert "visible on the network" in err
    assert token not in out + err


def test_the_browser_is_opened_unless_told_not_to(tmp_path, monkeypatch):
    opened, served = [], []
    monkeypatch.setattr("webbrowser.open", opened.append)

    def serve(app, host, port, on_ready):
        served.append((host, port))
        on_ready(4321)

    monkeypatch.setattr("fovea.web.serving.server.serve", serve)
    options = ["serve", "--library", str(tmp_path / "library")]
    before = set(threading.enumerate())
    for more, expected in ([], ["http://127.0.0.1:4321/"]), (["--no-browser"], []):
        result = CliRunner().invoke(cli, [*options, *more])
        assert result.exit_code == 0, result.output
        for thread in set(threading.enumerate()) - before:
            if not isinstance(thread, threading._DummyThread):
                thread.join(5)
        assert opened == expected
        opened.clear()
    assert served == [("127.0.0.1", 8000)] * 2


def spoken(address, data):
    """What the server says to bytes, however wrong: status, headers and body."""
    host, port = address.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(data)
        with http.client.HTTPResponse(connection) as answer:
            answer.begin()
            return answer.status, answer.headers, answer.read()


HOST = b" HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("data", "status", "instance"),
    [
        (b"nonsense\r\n\r\n", 400, "/"),
        (b"get /health" + HOST + b"\r\n", 400, "/"),
        (b"GET /health" + HOST + b"Content-Length: x\r\n\r\n", 400, "/health"),
        ((b"GET /health" + HOST + b"A: ").ljust(1 << 18, b"a"), 431, "/"),
        (b"POST /api/roots" + HOST + b"Content-Length: 2000000\r\n\r\n", 413, "/api/roots"),
        (b"POST /api/search" + HOST + b"Content-Length: 99999999\r\n\r\n", 413, "/api/search"),
        (b"POST /metadata" + HOST + b"Transfer-Encoding: gzip\r\n\r\n", 501, "/metadata"),
        (b"POST /metadata" + HOST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400, "/metadata"),
        (b"GET /health" + HOST + b"Range: \xff\r\nHost: evil.example\r\n\r\n", 421, "/health"),
    ],
)
def test_whatever_comes_is_answered_by_a_guarded_problem(server, data, status, instance):
    answered, headers, body = spoken(server, data)
    document = json.loads(body)
    assert (answered, document["status"], document["instance"]) == (status, status, instance)
    assert set(document) == {"type", "title", "status", "detail", "instance"}
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


# Bodies


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server):
    def head(path, size):
        return asked(server, path, "POST", b"", {"Content-Length": str(size)})[0]

    assert head("/api/roots", 2 << 20) == 413
    assert head("/api/search", 200 << 20) == 413
    assert head("/api/search", 10**30) == 413


@pytest.mark.parametrize("path", ["/api/search", "/api/pictures", "/knn-service"])
def test_routes_that_take_pictures_take_large_ones(server, path):
    status, _ = asked(server, path, "POST", b" " * (2 << 20), {"Content-Type": "text/plain"})
    assert status in (400, 415)
    assert asked(server, path, "POST", b"", {"Content-Length": str(200 << 20)})[0] == 413


def test_a_document_of_marks_may_be_larger_and_beyond_that_the_answer_says_how(server):
    status, body = asked(server, "/api/marks", "PUT", b"", {"Content-Length": str((16 << 20) + 1)})
    assert (status, "fovea mark import reads larger" in json.loads(body)["detail"]) == (413, True)
    large = json.dumps({"fovea": 1, "favourites": [{"sha256": "0" * 64}] * 20_000}).encode()
    assert len(large) > 1 << 20
    status, body = asked(server, "/api/marks", "PUT", large, {"Content-Type": "application/json"})
    assert (status, json.loads(body)["favourites"]) == (200, 1)


def test_a_body_of_unknown_length_is_refused_where_it_grows_too_large(server):
    def chunks():
        for _ in range(40):
            yield b" " * (1 << 16)

    try:
        status, _ = asked(server, "/api/roots", "POST", chunks(), {"Transfer-Encoding": "chunked"})
    except (BrokenPipeError, ConnectionResetError):
        return  # refused while it was still sending
    assert status == 413


def upload(*headers, length=9_000_000):
    """The beginning of a search by a picture."""
    lines = ("POST /api/search HTTP/1.1", f"Content-Length: {length}", *headers)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


@contextmanager
def held(address, number, data):
    """So many connections on which this much has been said and no more will be."""
    host, port = address.split("/")[2].split(":")
    with ExitStack() as opened:
        connections = []
        for _ in range(number):
            one = opened.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # little is sent ahead
            one.settimeout(30)
            one.connect((host, int(port)))
            one.sendall(data)
            connections.append(one)
        yield connections


def answered(connection):
    """What is answered on a connection: status and headers."""
    with http.client.HTTPResponse(connection) as answer:
        answer.begin()
        return answer.status, answer.headers


def a_picture_of_3_mb():
    file = io.BytesIO()
    Image.frombytes("RGB", (1024, 1024), os.urandom(3 << 20)).save(file, "PNG")
    return file.getvalue()


def search_by(address, picture):
    body = json.dumps({"pictures": [{"data": base64.b64encode(picture).decode()}]})
    return asked(address, "/api/search", "POST", body, {"Content-Type": "application/json"})[0]


@pytest.mark.parametrize("sent", [1, (1 << 20) + 5])
def test_uploads_that_stall_keep_no_other_out(searching, sent):
    data = upload("Host: localhost") + b"x" * sent
    with held(searching, AT_ONCE, data) as stalled:
        assert search_by(searching, a_picture_of_3_mb()) == 200
        if sent > 1:  # there was no room for all
            [first, *_], _, _ = select.select(stalled, [], [], 30)
            status, headers = answered(first)
            assert (status, headers["Retry-After"]) == (503, "5")
            assert headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Host: evil.example"], 421),
        (["Host: localhost", "Origin: http://evil.example"], 403),
        (["Host: localhost", "Sec-Fetch-Site: cross-site"], 403),
        (["Host: localhost", "Expect: 100-continue", "Origin: null"], 403),
    ],
)
def test_a_strangers_upload_is_refused_before_it_is_read(server, headers, status):
    assert spoken(server, upload(*headers))[0] == status


def test_an_upload_without_the_token_is_refused_before_it_is_read(tmp_path):
    with serving(tmp_path / "library", "--host", "0.0.0.0") as (_, address):
        token = address.partition("?token=")[2]
        own = f"http://127.0.0.1:{address.split('/')[2].rpartition(':')[2]}/"
        assert spoken(own, upload("Host: localhost"))[0] == 401
        bearer = f"Authorization: Bearer {token}"
        assert spoken(own, upload("Host: localhost", bearer, length=5) + b"12345")[0] == 415
        with held(own, 1, upload("Host: localhost", bearer) + b"x") as [taken]:
            assert spoken(own, upload("Host: localhost"))[0] == 401
            assert not select.select([taken], [], [], 0)[0]


def test_who_is_refused_can_read_why_although_still_sending(library):
    data = upload("Host: evil.example", length=60 << 20)
    with serving(library, LINGER_S=1, LOOK_S=1) as (_, address):
        host, port = address.split("/")[2].split(":")
        for _ in range(10):
            with socket.create_connection((host, int(port)), timeout=30) as connection:
                connection.sendall(data + b"x" * (8 << 20))
                assert answered(connection)[0] == 421
        with held(address, 3, data + b"x") as silent:  # they neither read nor leave
            for one in silent:
                while one.recv(1 << 16):
                    pass
            deadline = time.monotonic() + 60
            while not all(_is_closed(one) for one in silent):
                assert time.monotonic() < deadline
                time.sleep(0.2)


def _is_closed(connection):
    """Whether the other side has closed a connection for reading, too."""
    try:
        connection.send(b"x")
    except OSError:
        return True
    return False


# Connections that are held


def ask_for_original(*headers):
    lines = ("GET /api/images/1/original HTTP/1.1", "Host: localhost", *headers)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def test_a_part_of_a_large_file_is_that_part(searching):
    headers = {"Range": "bytes=100-20000099"}
    status, part = asked(searching, "/api/images/1/original", headers=headers)
    _, whole = asked(searching, "/api/images/1/original")
    assert status == 206 and part == whole[100:20_000_100]


@pytest.mark.parametrize(
    "data",
    [
        ask_for_original(),
        ask_for_original("Range: bytes=0-"),
        ask_for_original() * 2,
        ask_for_original("Range: bytes=5-") * 3,
    ],
    ids=["whole", "range", "two", "ranges"],
)
def test_readers_that_stall_hold_no_thread(searching, data):
    with held(searching, THREADS + 2, data) as stalled:
        for one in stalled:
            assert select.select([one], [], [], 30)[0]  # its answer has begun
        assert asked(searching)[0] == 200


def test_archives_that_nobody_reads_give_their_place_back(library):
    form = b"ids=1&format=zip"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    head = f"POST /api/exports HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(form)}\r\n"
    data = head.encode() + b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n"
    with serving(library, IDLE_S=2, LOOK_S=1) as (_, address):
        with held(address, ARCHIVES, data + form) as stalled:
            for one in stalled:
                select.select([one], [], [], 30)
            for _ in range(60):
                status, body = asked(address, "/api/exports", "POST", form, headers)
                if status == 200:
                    break
                assert status == 503
                time.sleep(0.5)
            assert zipfile.ZipFile(io.BytesIO(body)).namelist() == ["red.bmp"]


def test_connections_that_say_nothing_make_room_for_others(library):
    with serving(library, CONNECTIONS=40) as (_, address):
        with held(address, 60, b""), held(address, 60, b"G"):
            assert asked(address)[0] == 200
            body = upload("Host: localhost", length=500) + b"x"
            with held(address, 60, body):
                assert asked(address)[0] == 200


def test_headers_have_little_time_to_arrive(library):
    with serving(library, HEADERS_S=1, LOOK_S=1) as (_, address):
        with held(address, 2, b"") as silent, held(address, 2, b"GET / HTTP/1.1\r\n") as begun:
            assert [one.recv(1) for one in silent] == [b"", b""]
            for one in begun:
                status, headers = answered(one)
                assert (status, headers["Content-Type"]) == (408, "application/problem+json")
        connection = http.client.HTTPConnection(address.split("/")[2], timeout=30)
        with closing(connection):
            for _ in range(3):  # one that has asked may wait before it asks again
                connection.request("GET", "/health")
                assert connection.getresponse().read()
                time.sleep(1.5)


# Start


@pytest.mark.parametrize("path", ["/health", "/api/status", "/api/search?q=", "/api/docs"])
def test_the_app_answers_before_torch_is_imported(tmp_path, path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from fovea.web.app import create_app\n"
        f"app = create_app(Path({str(tmp_path / 'library')!r}))\n"
        f"response = app.test_client().get({path!r})\n"
        "assert response.status_code == 200, response.data\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "FOVEA_LIBRARY": str(tmp_path / "other")}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
