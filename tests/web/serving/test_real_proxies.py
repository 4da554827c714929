"""The examples in docs/serving.md, run by real proxies with TLS."""

import http.client
import io
import json
import os
import time
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from browsing import PATIENCE, indexed
from proxying import NAME, PREFIX, outside, program

FORM = "multipart/form-data; boundary=x"


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
