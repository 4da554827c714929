"""Ranges and conditions (RFC 9110) as bytes on a connection."""

import socket

import pytest
from PIL import Image

from browsing import indexed, served


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server of one picture."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.new("RGB", (256, 128), "red").save(folder / "red.bmp")
    library = indexed(tmp_path_factory.mktemp("wire") / "library", folder)
    with served(library) as address:
        yield address


SIZE = 256 * 128 * 3 + 54  # bytes of the picture's file
LAST = f"bytes {SIZE - 1}-{SIZE - 1}/{SIZE}"


@pytest.mark.parametrize(
    ("method", "headers", "status", "length", "content_range"),
    [
        ("GET", ["Range: bytes=0-9"], 206, 10, f"bytes 0-9/{SIZE}"),
        ("GET", ["range:bytes=-10"], 206, 10, f"bytes {SIZE - 10}-{SIZE - 1}/{SIZE}"),
        ("GET", [f"Range: bytes={SIZE - 1}-{'9' * 4000}"], 206, 1, LAST),
        ("GET", [f"Range: bytes={SIZE}-"], 416, None, f"bytes */{SIZE}"),
        ("GET", ["Range: bytes=-0"], 416, None, f"bytes */{SIZE}"),
        ("HEAD", [], 200, SIZE, None),
        ("HEAD", ["Range: bytes=0-9"], 200, SIZE, None),
        ("HEAD", [f"Range: bytes={SIZE}-"], 200, SIZE, None),
        ("GET", ['If-Match: "a"', 'If-Match: "b"'], 412, None, None),
        ("HEAD", ['If-Match: "a"'], 412, None, None),
        ("GET", ["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], 412, None, None),
        ("GET", ["If-Unmodified-Since: Sunday, 06-Nov-94 08:49:37 GMT"], 412, None, None),
        ("GET", ["If-None-Match: *"], 304, None, None),
        ("GET", ["If-None-Match: *", "Range: bytes=0-9"], 304, None, None),
        ("HEAD", ["If-None-Match: *"], 304, None, None),
        ("GET", ["Range: bytes=0-9", 'If-Range: "a"'], 200, SIZE, None),
        ("GET", ["Range: bytes=0-9", "Range: bytes=20-29"], 200, SIZE, None),
        ("GET", ["Range: bytes=0-9,20-29"], 200, SIZE, None),
        ("GET", ["Range: seconds=0-9"], 200, SIZE, None),
        ("GET", ["Range: bytes=" + "0-," * 20_000], 200, SIZE, None),
        ("GET", ["Range: \xb2"], 200, SIZE, None),
    ],
)  # fmt: skip
def test_ranges_and_conditions_on_the_wire(server, method, headers, status, length, content_range):
    lines = [f"{method} /api/images/1/original HTTP/1.1", "Host: localhost", *headers, "", ""]
    after = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    host, port = server.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        with connection.makefile("rb") as said:
            found, received = head_of(said)
            assert found == status
            assert received.get("content-range") == content_range
            if length is not None:
                assert int(received["content-length"]) == length
            has_body = method == "GET" and status != 304
            body = said.read(int(received["content-length"])) if has_body else b""
            assert not has_body or body
            if received.get("connection") == "close":
                assert said.read() == b""
                return
            connection.sendall(after.encode())  # the next answer begins where this one ends
            assert head_of(said)[0] == 200
            assert said.read() == b'{"status":"ok"}\n'


def head_of(said):
    """Read the status and the headers of an answer, by their names in lower case."""
    status = int(said.readline().split()[1])
    headers = {}
    while line := said.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return status, headers
