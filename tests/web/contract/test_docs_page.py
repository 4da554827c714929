"""The description of the API as people read it, and the script that docs/serving.md shows."""

import json
import re
import shlex
import subprocess
import sys
from urllib.request import urlopen

import pytest
from PIL import Image

from browsing import indexed, served, violations, visited
from fovea.web.app import create_app
from fovea.web.contract.openapi import written
from places import CHECKOUT


def page_of(client, **more):
    response = client.get("/api/docs", **more)
    assert response.status_code == 200
    return response.get_data(as_text=True)


def commands(page):
    found = re.findall(r"<pre><code>(.*?)</code></pre>", page)
    return [
        shlex.split(one.replace("&#39;", "'").replace("&amp;", "&").replace("&#34;", '"'))
        for one in found
    ]


def test_search_comes_first_and_the_clients_of_others_last(client):
    document = client.get("/api/openapi.json").json
    tags = [tag["name"] for tag in document["tags"]]
    assert tags[:3] == ["Search", "Images", "Marks"] and tags[-1] == "clip-retrieval"
    assert all(tag["description"] for tag in document["tags"])
    assert next(iter(document["paths"])) == "/api/search"
    headings = re.findall(r'<section id="[a-z-]+"[^>]*>\s*<h2[^>]*>([^<]+)<', page_of(client))
    assert headings == ["Try it", *tags, "Schemas"]


def test_what_is_in_backticks_is_code_and_nothing_else_is_markup(client):
    page = page_of(client)
    assert "`" not in page and "<code>likely</code>" in page
    assert str(written("a `b<c` & <i>`d")) == "a <code>b&lt;c</code> &amp; &lt;i&gt;`d"
    assert str(written("one\n\ntwo ``three``")) == "one</p><p>two <code>three</code>"


def test_every_route_and_parameter_is_on_the_page(client):
    page, document = page_of(client), client.get("/api/openapi.json").json
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page, path
            for parameter in operation["parameters"]:
                assert f"<dt><code>{parameter['name']}</code>" in page
    for name in document["components"]["schemas"]:
        assert f'id="{name}"' in page


def test_the_first_command_works_as_it_stands(client):
    [program, address], *_ = commands(page_of(client))
    assert (program, address.startswith("http://localhost/api/search?")) == ("curl", True)
    answer = client.get(address.removeprefix("http://localhost"))
    assert answer.status_code == 200
    assert [set(hit) for hit in answer.json["hits"]] == [{"name", "score", "original"}] * 3


def test_the_commands_name_this_server_and_its_token(colour_library):
    app = create_app(
        colour_library.folder, token="secret", prefix="/photos", proxies=["127.0.0.1"], testing=True
    )
    headers = {"Authorization": "Bearer secret"}
    page = page_of(app.test_client(), headers=headers)
    for command in commands(page):
        assert "Authorization: Bearer $FOVEA_TOKEN" in command
        assert any("/photos/api/search" in word for word in command)
    assert "secret" not in page
    app.extensions["fovea"].close()


def test_the_page_fits_a_phone_and_copies_its_commands(browser, gallery):
    for width in (1280, 320):
        options = {"viewport": {"width": width, "height": 800}}
        with visited(browser, f"{gallery}/api/docs", **options) as page:
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert violations(page) == []
            assert page.locator("pre .copy").count() == page.locator("pre").count() >= 2
            page.locator("pre .copy").first.click()
            page.locator("pre .copy:text-matches('Copied|Cannot')").wait_for()


# The script


def script():
    text = (CHECKOUT / "docs" / "serving.md").read_text("utf-8")
    [found] = [
        block
        for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if "urlretrieve" in block
    ]
    return found


def test_the_script_of_the_docs_has_ten_lines_and_no_other_packages():
    lines = [line for line in script().splitlines() if line.strip()]
    assert len(lines) <= 10 and max(map(len, lines)) <= 100
    names = re.findall(r"^(?:import|from) (.+?)(?: import .*)?$", script(), re.MULTILINE)
    modules = {name.split(".")[0] for line in names for name in line.split(", ")}
    assert modules <= sys.stdlib_module_names


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    photos = tmp_path_factory.mktemp("photos")
    for number in range(25):
        colour = (number * 10, 255 - number * 7, number * 83 % 256)
        Image.new("RGB", (64, 48), colour).save(photos / f"photo {number}.png")
    library = indexed(tmp_path_factory.mktemp("running") / "library", photos)
    with served(library) as address:
        yield address


def test_the_script_of_the_docs_copies_the_twenty_best(running, tmp_path):
    (tmp_path / "copy_best.py").write_text(script(), "utf-8")
    command = [sys.executable, "copy_best.py", running, "a dog on a beach", "best"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    with urlopen(f"{running}/api/search?q=a+dog+on+a+beach&limit=20") as answer:
        hits = json.load(answer)["hits"]
    copied = sorted((tmp_path / "best").iterdir())
    assert [file.name for file in copied] == [f"{hit['rank']:02} {hit['name']}" for hit in hits]
    assert len(copied) == 20
    for file, hit in zip(copied, hits, strict=True):
        with open(hit["path"], "rb") as original:
            assert file.read_bytes() == original.read()
