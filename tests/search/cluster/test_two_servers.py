"""Two servers of one library on Milvus, behind nginx; and the page in a browser."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

from browsing import BOX, PATIENCE, free_port, indexed
from fovea.search.cluster.address import FOLDER
from libraries import eventually, made_library
from milvus_server import MilvusServer
from places import PHOTOS

NGINX = """{user}daemon off;
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{}}
http {{
    access_log off;
    {temporary}
    upstream fovea {{
        server 127.0.0.1:{first} max_fails=1 fail_timeout=5s;
        server 127.0.0.1:{second} max_fails=1 fail_timeout=5s;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://fovea;
            proxy_set_header Host $http_host;
            proxy_next_upstream error timeout;
        }}
    }}
}}
"""


@pytest.fixture(scope="module")
def indexed_there(milvus, tmp_path_factory):
    """The photos on Milvus, put there by the command; the address as commands take it."""
    place = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(FOLDER, str(place / "milvus"))
        with made_library(milvus, empty=True) as cluster:
            indexed(str(cluster.address), PHOTOS)
            count = sum(file.suffix.lower() in (".jpg", ".png") for file in PHOTOS.iterdir())
            used = cluster.used(now=True)
            eventually(lambda: cluster.client.count(used.collection) == count)
            yield str(cluster.address), count


@contextmanager
def serving(address, log):
    """Run ``fovea serve``; yield its process and port once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "fovea", "serve", "--library", address, "--no-browser"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env=os.environ | {"FOVEA_OFFLINE": "1"},
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                get(port, "/health")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield process, port
    finally:
        process.kill()
        process.wait()


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return answer.read()


def test_one_of_two_servers_dies_and_no_request_fails(indexed_there, tmp_path):
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        reason = "no nginx on this machine (apt-get install nginx)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    address, count = indexed_there
    logs = tmp_path / "one.log", tmp_path / "other.log"
    with serving(address, logs[0]) as (one, first), serving(address, logs[1]) as (_, second):
        port, kinds = free_port(), ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        text = NGINX.format(
            user="" if os.geteuid() else "user root;\n",
            place=tmp_path,
            temporary="\n    ".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds),
            first=first,
            second=second,
            port=port,
        )
        (tmp_path / "nginx.conf").write_text(text)
        command = [nginx, "-e", f"{tmp_path}/error.log", "-p", str(tmp_path)]
        proxy = subprocess.Popen([*command, "-c", str(tmp_path / "nginx.conf")])
        try:

            def is_up():
                try:
                    return bool(get(port, "/health"))
                except OSError:
                    return False

            eventually(is_up)
            [hit, *_] = json.loads(get(port, "/api/search?q=a+dog"))["hits"]
            for asked in range(30):
                if asked == 10:
                    one.kill()
                answer = json.loads(get(port, f"/api/search?q=&limit={1 + asked % 5}"))
                assert answer["total"] == count
                assert get(port, f"/api/images/{hit['image_id']}/thumbnail")[:4] == b"RIFF"
        finally:
            proxy.terminate()
            proxy.wait(timeout=30)


@contextmanager
def visited(browser, port, query):
    """The page, with a list of what failed in it."""
    page, failed = browser.new_page(), []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("response", lambda answer: answer.status >= 400 and failed.append(answer.url))
    try:
        page.goto(f"http://127.0.0.1:{port}/?q={query}")
        page.wait_for_selector("html[data-ready]")
        yield page, failed
    finally:
        page.close()


def tiles(page, count):
    """Wait until an answer of so many pictures is shown: its first ones, and their number."""
    page.wait_for_function(
        """count => {
            const shown = document.querySelectorAll("a img[src*=thumbnail]").length;
            const said = document.getElementById("status").textContent.match(/[0-9,]+/g);
            return shown && shown <= count && said?.includes(`${count}`);
        }""",
        arg=count,
    )


def search(page, query):
    page.fill(BOX, query)
    page.press(BOX, "Enter")


def test_the_page_searches_filters_and_shows_a_picture(indexed_there, browser, tmp_path):
    address, count = indexed_there
    with serving(address, tmp_path / "log") as (_, port):
        with visited(browser, port, "a+dog") as (page, failed):
            tiles(page, count)
            page.wait_for_function(
                "[...document.querySelectorAll('a img[src*=thumbnail]')]"
                ".some(image => image.naturalWidth > 0)"
            )
            name = json.loads(get(port, "/api/search?q=&limit=1"))["hits"][0]["name"]
            search(page, f"a dog name:{name}")
            tiles(page, 1)
            search(page, "a cat")  # the filter stays beside the box
            tiles(page, 1)
            page.locator("a:has(img[src*=thumbnail])").first.click()
            page.get_by_text("Similar pictures").wait_for()
            page.get_by_text(name).first.wait_for()
            assert failed == []


def test_the_page_says_that_milvus_is_away_and_recovers_by_itself(
    milvus, indexed_there, browser, tmp_path
):
    if not isinstance(milvus, MilvusServer):
        pytest.skip("the server that FOVEA_TEST_MILVUS names is not to be stopped")
    address, count = indexed_there
    with serving(address, tmp_path / "log") as (_, port):
        with visited(browser, port, "a+dog") as (page, _):
            tiles(page, count)
            milvus.stop()
            search(page, "a cat")
            said = page.locator("#problem")
            said.get_by_text("does not answer").wait_for(timeout=60_000)
            assert "\n" not in said.inner_text().strip()
            milvus.start()
            said.wait_for(state="hidden", timeout=120_000)
            tiles(page, count)
