"""The examples in docs/serving.md, run by real proxies with TLS: nginx and Caddy."""

import http.client
import io
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from browsing import PATIENCE, indexed
from places import CHECKOUT

PAGE = CHECKOUT / "docs" / "serving.md"
NAME = "photos.example.org"
PREFIX = "/photos"
FORM = "multipart/form-data; boundary=x"
NGINX = """{user}daemon off;
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{}}
http {{
    access_log off;
    {temporary}
{server}
}}
"""
CADDY = """{{
    admin off
    auto_https disable_redirects
}}
{server}
"""


def program(name: str) -> str:
    """Return the path of a proxy; without it skip the test, or fail it in CI."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        reason = f"no {name} on this machine (apt-get install {name})"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def example(language: str) -> str:
    """Return the one example in docs/serving.md of a proxy's configuration."""
    text = PAGE.read_text("utf-8")
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate signed by itself, for the example's name and 127.0.0.1, and its key."""
    public, secret = folder / "certificate.pem", folder / "key.pem"
    command = [program("openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
    command += ["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={NAME}"]
    command += ["-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    command += ["-keyout", str(secret), "-out", str(public)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return public, secret


def configured(kind: str, place: Path, port: int, inner: int) -> list[str]:
    """Write a proxy's configuration, the example's on other ports; return the command."""
    public, secret = certificate(place)
    text = example(kind)
    changes = {"127.0.0.1:8000": f"127.0.0.1:{inner}"}
    if kind == "nginx":
        changes |= {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            f"/etc/ssl/{NAME}.crt": str(public),
            f"/etc/ssl/{NAME}.key": str(secret),
        }
    else:
        own = f"{NAME}:{port}, https://127.0.0.1:{port} {{\n    bind 127.0.0.1\n"
        changes[f"{NAME} {{\n"] = f"{own}    tls {public} {secret}\n"
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    file = place / f"{kind}.conf"
    if kind == "nginx":
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "\n    ".join(f"{one}_temp_path {place}/{one};" for one in kinds)
        user = "" if os.geteuid() else "user root;\n"  # another one cannot enter the folder
        file.write_text(NGINX.format(user=user, place=place, temporary=temporary, server=text))
        return [program("nginx"), "-e", f"{place}/error.log", "-p", str(place), "-c", str(file)]
    file.write_text(CADDY.format(server=text))
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]


@contextmanager
def proxied(kind: str, place: Path, port: int, inner: int) -> Iterator[None]:
    """Run a proxy with TLS on one port, in front of the server on the other."""
    command = configured(kind, place, port, inner)
    home = {"HOME": str(place), "XDG_DATA_HOME": str(place), "XDG_CONFIG_HOME": str(place)}
    with (place / "proxy.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ | home
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 5).close()
                    break
                except OSError:
                    said = (place / "proxy.log").read_text(errors="replace")
                    assert process.poll() is None and time.monotonic() < deadline, said
                    time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


@dataclass(frozen=True, slots=True)
class Outside:
    """How clients reach a server through its proxy."""

    address: str  # with the example's name, and without a last slash
    port: int
    token: str
    inner: int  # the port of the server itself
    tls: ssl.SSLContext

    @contextmanager
    def answered(self, method, path, body=None, headers=None, *, is_known=True):
        """Send a request, with the token if the client is known; yield the response."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=self.tls, timeout=PATIENCE
        )
        headers = {"Host": f"{NAME}:{self.port}"} | (headers or {})
        if is_known:
            headers = {"Cookie": f"fovea_token={self.token}"} | headers
        with closing(connection):
            connection.request(method, PREFIX + path, body, headers)
            with connection.getresponse() as response:
                yield response

    def ask(self, method, path, body=None, headers=None, *, is_known=True):
        """Send a request; return status, headers and body."""
        with self.answered(method, path, body, headers, is_known=is_known) as response:
            return response.status, response.headers, response.read()

    def json(self, method, path, document=None):
        """Send and read JSON; return the status and the document."""
        body = None if document is None else json.dumps(document)
        headers = {"Content-Type": "application/json", "Origin": self.address.removesuffix(PREFIX)}
        status, _, data = self.ask(method, path, body, headers)
        return status, json.loads(data)


@contextmanager
def outside(kind: str, library: Path, place: Path, *options: str) -> Iterator[Outside]:
    """Run ``fovea serve`` as the documentation says, behind a proxy of this kind."""
    program(kind)
    inner, port = free_port(), free_port()
    [said] = re.findall(
        r"^\$ (fovea serve .*--prefix.*) ~/Pictures$", PAGE.read_text("utf-8"), re.M
    )
    command = [sys.executable, "-u", "-m", *said.split(), "--port", str(inner), *options]
    with (place / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--library", str(library)],
            cwd=CHECKOUT,
            env=os.environ | {"FOVEA_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        try:
            line = process.stdout.readline()
            tokens = re.findall(r"https://\S+/photos/\?token=([\w-]+)", line)
            assert tokens, (line, (place / "server.log").read_text(errors="replace"))
            with proxied(kind, place, port, inner):
                address = f"https://{NAME}:{port}{PREFIX}"
                yield Outside(address, port, tokens[0], inner, trusting(place))
        finally:
            process.terminate()
            process.communicate(timeout=30)


def trusting(place: Path) -> ssl.SSLContext:
    """Return a client's settings that trust the certificate made there."""
    return ssl.create_default_context(cafile=str(place / "certificate.pem"))


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def server(request, tmp_path_factory):
    """A server of one large picture behind a proxy."""
    program(request.param)
    folder = tmp_path_factory.mktemp("pictures")
    Image.new("RGB", (2048, 2048), "red").save(folder / "red.bmp")  # 12 MiB
    library = indexed(tmp_path_factory.mktemp("library") / "library", folder)
    with outside(request.param, library, tmp_path_factory.mktemp("proxy")) as found:
        yield found


def test_the_token_logs_in_once_and_for_https_alone(server):
    status, headers, _ = server.ask("GET", f"/?token={server.token}", is_known=False)
    assert status == 200
    assert headers["Refresh"] == f"0; url={PREFIX}/"
    cookie, *parts = headers["Set-Cookie"].split("; ")
    assert cookie == f"fovea_token={server.token}"
    assert {"Secure", "HttpOnly", f"Path={PREFIX}", "SameSite=Strict"} <= set(parts)
    assert server.ask("GET", "/")[0] == 200
    assert server.ask("GET", "/", is_known=False)[0] == 401


def test_the_prefix_without_a_slash_is_completed(server):
    status, headers, _ = server.ask("GET", "")
    assert status in (301, 302, 308)
    assert headers["Location"] in (f"{PREFIX}/", f"{server.address}/")


def test_what_a_client_writes_into_the_headers_of_a_proxy_does_not_count(server):
    lies = {
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "for=127.0.0.1;host=evil.example;proto=http",
    }
    assert server.ask("GET", "/health", headers=lies, is_known=False)[0] == 401
    status, headers, page = server.ask("GET", f"/?lang=en&token={server.token}", headers=lies)
    assert status == 200 and "Secure" in headers["Set-Cookie"]
    assert b"evil" not in page and headers["Refresh"] == f"0; url={PREFIX}/"
    status, _, body = server.ask("GET", "/api/openapi.json", headers=lies)
    assert status == 200 and json.loads(body)["servers"] == [{"url": PREFIX}]
    status, _, body = server.ask("GET", "/health", headers={"Host": "evil.example"})
    assert status != 200 or body == b""  # Caddy's answer for a name that it does not serve


def test_only_the_own_page_changes_something(server):
    body = json.dumps({"ids": []})
    own = f"https://{NAME}:{server.port}"
    for origin, status in [
        (own, 200),
        (own.replace("https", "http"), 403),
        (f"https://{NAME}", 403),
        (f"https://evil.example:{server.port}", 403),
        ("http://127.0.0.1:8000", 403),
    ]:
        assert server.ask("POST", "/metadata", body, {"Origin": origin})[0] == status, origin


def test_pictures_are_found_by_words_and_their_addresses_work(server):
    status, found = server.json("GET", "/api/search?q=red")
    assert status == 200
    [hit, *_] = [one for one in found["hits"] if one["name"] == "red.bmp"]
    _, image = server.json("GET", f"/api/images/{hit['image_id']}")
    for address in (hit["thumbnail"], image["original"]):
        assert address.startswith(f"{PREFIX}/")
        assert server.ask("GET", address.removeprefix(PREFIX))[0] == 200
    [known] = server.json("POST", "/metadata", {"ids": [hit["image_id"]]})[1]
    assert known["metadata"]["url"] == f"https://{NAME}:{server.port}{image['original']}"


def test_ranges_arrive_unchanged(server):
    place = "/api/images/1/original"
    _, headers, whole = server.ask("GET", place)
    assert len(whole) > 12 << 20
    status, part, data = server.ask("GET", place, headers={"Range": "bytes=100-5000099"})
    assert (status, data) == (206, whole[100:5_000_100])
    assert part["Content-Range"] == f"bytes 100-5000099/{len(whole)}"
    condition = {"Range": "bytes=-7", "If-Range": headers["ETag"]}
    assert server.ask("GET", place, headers=condition)[::2] == (206, whole[-7:])
    status, beyond, _ = server.ask("GET", place, headers={"Range": f"bytes={len(whole)}-"})
    assert (status, beyond["Content-Range"]) == (416, f"bytes */{len(whole)}")
    assert server.ask("GET", place, headers={"If-None-Match": headers["ETag"]})[0] == 304
    assert server.ask("GET", place, headers={"If-Match": '"other"'})[0] == 412
    status, head, data = server.ask("HEAD", place)
    assert (status, head["Content-Length"], data) == (200, str(len(whole)), b"")


def test_a_picture_of_some_megabytes_is_searched_by(server):
    file = io.BytesIO()
    Image.frombytes("RGB", (1024, 1024), os.urandom(3 << 20)).save(file, "PNG")
    lines = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
    body = lines + file.getvalue() + b"\r\n--x--\r\n"
    assert len(body) > 3 << 20
    status, _, data = server.ask("POST", "/api/search", body, {"Content-Type": FORM})
    assert status == 200 and json.loads(data)["hits"]
    for _ in range(10):  # refused while it arrives, the answer must still come through
        more = {"Content-Type": FORM}
        assert server.ask("POST", "/api/search", body, more, is_known=False)[0] == 401


def events(stream):
    """Yield the events of a stream as (name, document), each as soon as it arrives."""
    name = ""
    while raw := stream.readline():
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_events_arrive_while_a_folder_is_added(server, tmp_path):
    Image.new("RGB", (64, 48), "blue").save(tmp_path / "blue.png")
    with server.answered("GET", "/api/events") as stream:
        assert stream.status == 200
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        found = events(stream)
        status, root = server.json("POST", "/api/roots", {"path": str(tmp_path)})
        assert status == 201 and root["path"] == str(tmp_path)
        deadline = time.monotonic() + 120
        seen = set()
        for name, document in found:  # the stream never ends: each event must come by itself
            seen.add(name)
            if name == "scan" and document["state"] == "done" and "library" in seen:
                break
            assert time.monotonic() < deadline, seen
    names = {hit["name"] for hit in server.json("GET", "/api/search?q=")[1]["hits"]}
    assert {"red.bmp", "blue.png"} <= names


def test_the_server_itself_asks_whoever_goes_round_the_proxy_for_the_token(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.inner, timeout=60)
    with closing(connection):
        for headers, status in [
            ({}, 401),
            ({"X-Forwarded-For": "127.0.0.1"}, 401),
            ({"Authorization": f"Bearer {server.token}"}, 200),
        ]:
            connection.request("GET", "/health", headers=headers)
            answer = connection.getresponse()
            assert (answer.read() != b"", answer.status) == (True, status)


# The page


def test_the_page_works_under_the_prefix(browser, server):
    problems = []

    def failed(request):
        if request.failure != "net::ERR_ABORTED":  # the page no longer wants it
            problems.append(f"{request.url} {request.failure}")

    context = browser.new_context(ignore_https_errors=True)
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", lambda said: problems.append(said.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", failed)
        page.on(
            "response", lambda one: one.status < 400 or problems.append(f"{one.status} {one.url}")
        )
        asked = []
        page.on("request", lambda one: asked.append(one.url))
        page.goto(f"{server.address}/?token={server.token}")
        page.wait_for_url(f"{server.address}/")
        page.wait_for_selector(".tile img")
        page.fill("input[name=q]", "red")
        page.wait_for_url("**q=red*")
        page.wait_for_function(
            "() => [...document.querySelectorAll('.tile img')].some((one) => one.naturalWidth)"
        )
        page.click(".tile[data-index='0'] .tile-open")
        page.wait_for_selector("#detail[data-state=ready]")
        page.click("[data-action=more-like]")
        page.wait_for_url("**like*")
        page.wait_for_selector(".chip-picture")
        page.goto(f"{server.address}/")
        page.wait_for_selector(".tile img")
        page.click("#open-library")
        page.wait_for_selector(".root")
        page.click("#library [data-action=close]")
        page.select_option("#language", "zh-Hans")
        page.wait_for_selector("html[lang=zh-Hans] .tile img")
        page.focus(".tile[data-index='0'] .tile-open")
        page.keyboard.press("x")
        with page.expect_download() as download:
            page.click("#selection [data-action=csv]")
        assert len(Path(download.value.path()).read_text("utf-8-sig").splitlines()) == 2
        page.goto(f"{server.address}/api/docs")
        page.click("text=the pictures")
        page.wait_for_url(f"{server.address}/")
        page.wait_for_selector(".tile img")
    finally:
        context.close()
    assert not problems, problems
    assert any(url.endswith("/api/events") for url in asked)
    assert [url for url in asked if not url.startswith((f"{server.address}/", "blob:"))] == []
