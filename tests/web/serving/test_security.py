import pytest

from fovea.web.app import create_app
from fovea.web.serving.security import LOOPBACK, bound_names, is_loopback, new_token

TOKEN = "s3cret-token"


@pytest.fixture
def guarded(tmp_path):
    """A client of an app that others reach, under two names and any address."""
    app = create_app(
        tmp_path / "guarded", token=TOKEN, hosts=(*LOOPBACK, "photos.lan", "*"), testing=True
    )
    yield app.test_client()
    app.extensions["fovea"].close()


def is_problem(response, status):
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    assert response.json["status"] == status
    return True


# Host


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "localhost."]
)
def test_the_names_of_this_machine_are_answered(client, host):
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#localhost",
        "evil.example/localhost",
        "192.168.1.5",
        "0x7f000001",
        "localhost:port",
        "[::1",
        "[::1]evil",
        "localhost, evil.example",
        "",
    ],
)
def test_another_name_is_refused(client, host):
    assert is_problem(client.get("/health", headers={"Host": host}), 421)


def test_a_static_file_is_no_exception(client):
    with client.get("/static/css/docs.css") as response:
        assert response.status_code == 200
    is_problem(client.get("/static/css/docs.css", headers={"Host": "evil.example"}), 421)


def test_an_address_is_answered_where_all_are_bound(guarded):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for host in ("192.168.1.5:8000", "[fd00::1]:8000", "photos.lan"):
        assert guarded.get("/health", headers={"Host": host, **bearer}).status_code == 200
    is_problem(guarded.get("/health", headers={"Host": "evil.example", **bearer}), 421)


@pytest.mark.parametrize(
    "host, expected",
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.8.8.8", True)]
    + [("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("photos.lan", False)],
)
def test_loopback_is_what_only_this_machine_reaches(host, expected):
    assert is_loopback(host) is expected
    assert ("*" in bound_names(host)) is not expected
    assert host in bound_names(host)


# Origin and Fetch Metadata


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_our_own_pages_and_plain_clients_may_change_something(client, headers):
    assert client.post("/metadata", json={"ids": []}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
        {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        },
    ],
)
@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", "/api/roots"),
        ("POST", "/api/search"),
        ("POST", "/knn-service"),
        ("POST", "/metadata"),
        ("DELETE", "/api/roots/1"),
        ("PUT", "/api/no-such"),
    ],
)
def test_a_strangers_page_changes_nothing(app, method, path, headers):
    client = app.test_client()
    is_problem(client.open(path, method=method, json={"ids": []}, headers=headers), 403)
    assert len(app.extensions["fovea"].library.roots()) == 1


def test_a_strangers_page_may_link_here_but_load_nothing(client):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    seen = client.get("/api/docs", headers={**link, "Sec-Fetch-Dest": "document"})
    assert seen.status_code == 200
    is_problem(client.get("/api/docs", headers={**link, "Sec-Fetch-Dest": "iframe"}), 403)
    loaded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    is_problem(client.get("/api/status", headers={**loaded, "Sec-Fetch-Dest": "script"}), 403)


# Answers


@pytest.mark.parametrize("path", ["/health", "/api/docs", "/no-such", "/static/css/docs.css"])
def test_every_answer_says_what_may_be_done_with_it(client, path):
    with client.get(path) as response:
        headers = response.headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not [name for name in headers.keys() if name.startswith("Access-Control")]


def test_a_preflight_allows_no_origin(client):
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    headers = client.options("/knn-service", headers=asked).headers
    assert not [name for name in headers.keys() if name.startswith("Access-Control")]


# Token


@pytest.mark.parametrize(
    "path", ["/", "/health", "/api/status", "/api/docs", "/static/css/docs.css"]
)
def test_without_the_token_nothing_is_answered(guarded, path):
    response = guarded.get(path)
    assert is_problem(response, 401)
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("value", ["", "wrong", TOKEN[:-1], TOKEN + "x", "é" * 12])
def test_a_wrong_token_is_as_good_as_none(guarded, value):
    assert is_problem(guarded.get("/health", query_string={"token": value}), 401)
    bearer = {"Authorization": f"Bearer {value}".encode().decode("latin-1")}
    assert is_problem(guarded.get("/health", headers=bearer), 401)
    guarded.set_cookie("fovea_token", value.encode().decode("latin-1"))
    assert is_problem(guarded.get("/health"), 401)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_program_sends_the_token_as_bearer(guarded, scheme):
    answer = guarded.get("/health", headers={"Authorization": f"{scheme} {TOKEN}"})
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers


def test_a_browser_keeps_the_token_as_a_cookie(guarded):
    first = guarded.get("/api/docs", query_string={"token": TOKEN})
    assert first.status_code == 200
    assert first.headers["Refresh"] == "0; url=/api/docs"
    assert first.headers["Cache-Control"] == "no-store"
    assert TOKEN not in first.get_data(as_text=True)
    cookie = first.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
    assert guarded.get("/api/docs").status_code == 200


def test_whoever_looks_before_a_visit_is_let_in_as_well(guarded):
    seen = guarded.head("/", query_string={"token": TOKEN})
    assert seen.status_code == 200 and not seen.data and "Set-Cookie" in seen.headers


def test_the_token_in_an_address_is_for_the_first_visit_alone(guarded):
    is_problem(guarded.post("/metadata", query_string={"token": TOKEN}, json={"ids": []}), 401)


@pytest.mark.parametrize("path", ["//evil.example/", "/\r\nSet-Cookie: a=b", '/"><script>'])
def test_the_way_on_is_never_to_another_host_or_out_of_the_header(guarded, path):
    answer = guarded.get("/", query_string={"token": TOKEN}, environ_overrides={"PATH_INFO": path})
    place = answer.headers["Refresh"].removeprefix("0; url=")
    assert place.startswith("/") and not place.startswith("//")
    assert "a" not in {cookie.split("=")[0] for cookie in answer.headers.getlist("Set-Cookie")}
    assert "<script>" not in answer.get_data(as_text=True)


def test_a_link_from_another_site_gets_a_second_chance_with_the_cookie(guarded):
    link = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    first = guarded.get("/?q=dog", headers={**link, "Sec-Fetch-Site": "cross-site"})
    assert first.headers["Refresh"] == "0; url=/?q=dog"
    is_problem(guarded.get("/?q=dog", headers={**link, "Sec-Fetch-Site": "same-origin"}), 401)


def test_tokens_are_long_and_never_the_same():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 32


def test_a_browser_without_the_token_reads_why_and_can_try_again(guarded):
    page = guarded.get("/%22%3E%3Cscript%3E", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.status_code == 401
    assert page.content_type == "text/html; charset=utf-8"
    text = page.get_data(as_text=True)
    assert "the token that fovea serve printed" in text
    assert "<script>" not in text and 'href="/%22%3E%3Cscript%3E"' in text
    assert page.headers["WWW-Authenticate"].startswith("Bearer")
    assert page.headers["Content-Security-Policy"]
