import re

import pytest
from click.testing import CliRunner

from fovea.cli import cli
from fovea.cli.serving import serve as command
from fovea.search.errors import FoveaError
from fovea.web.app import create_app
from fovea.web.serving.proxies import LOOPBACK_PROXIES, Proxies, clean_prefix, network_of
from fovea.web.serving.security import LOOPBACK, allowed_name

TOKEN = "s3cret-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NAME = "photos.example.org"
TRUSTED = (*LOOPBACK_PROXIES, "10.0.0.5", "10.1.0.0/16", "fd00::/8")
FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": NAME,
    "X-Forwarded-Prefix": "/photos",
}


@pytest.fixture
def make(colour_library):
    """A function that makes a client of an app with these settings."""
    made = []

    def build(**settings):
        settings = {"token": TOKEN, "hosts": (*LOOPBACK, NAME), "proxies": TRUSTED} | settings
        made.append(create_app(colour_library.folder, testing=True, **settings))
        return made[-1].test_client()

    yield build
    for app in made:
        app.extensions["fovea"].close()


def seen(peer="127.0.0.1", trusted=TRUSTED, option="", path="/", **headers):
    """What the app sees of a request: client, scheme, Host, prefix and path."""
    names = {f"HTTP_X_FORWARDED_{name.upper()}": value for name, value in headers.items()}
    environ = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "inner:8000"}
    environ |= {"SCRIPT_NAME": "", "PATH_INFO": path, "SERVER_NAME": "inner", **names}
    found = Proxies(trusted, option).unwrapped(environ)
    keys = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME", "PATH_INFO")
    return tuple(found[key] for key in keys)


# Whom to believe


@pytest.mark.parametrize(
    "peer",
    ["127.0.0.1", "127.9.9.9", "::1", "10.0.0.5", "10.1.255.7", "fd12::3", "::ffff:10.0.0.5"],
)
def test_a_trusted_proxy_says_who_the_client_is_and_what_it_sees(peer):
    told = {"for": "203.0.113.9", "proto": "https", "host": f"{NAME}:8443", "prefix": "/photos"}
    expected = ("203.0.113.9", "https", f"{NAME}:8443", "/photos", "/")
    assert seen(peer, **told) == expected


@pytest.mark.parametrize(
    "peer", ["10.0.0.6", "10.2.0.1", "203.0.113.9", "fe80::1", "::ffff:10.0.0.6", "", "unix:"]
)
def test_nobody_else_is_believed(peer):
    told = {"for": "127.0.0.1", "proto": "https", "host": NAME, "prefix": "/photos"}
    assert seen(peer, **told) == (peer, "http", "inner:8000", "", "/")


def test_with_addresses_named_loopback_is_not_believed():
    assert seen("127.0.0.1", trusted=["10.0.0.5"], proto="https")[1] == "http"


@pytest.mark.parametrize(
    "forwarded, client",
    [
        ("203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("127.0.0.1, 203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9, 10.0.0.5", "203.0.113.9"),
        ("203.0.113.9,10.1.2.3 , 10.0.0.5", "203.0.113.9"),
        ("203.0.113.9:51234", "203.0.113.9"),
        ("[2001:db8::7]:51234, fd00::1", "2001:db8::7"),
        ('"[2001:db8::7]"', "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("6.6.6.6, unknown", "127.0.0.1"),
        ("6.6.6.6, unknown, 10.0.0.5", "10.0.0.5"),
        ("6.6.6.6, <script>", "127.0.0.1"),
        ("10.1.1.1, 10.0.0.5", "10.1.1.1"),
        (", ,", "127.0.0.1"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_not_trusted(forwarded, client):
    assert seen(**{"for": forwarded})[0] == client


@pytest.mark.parametrize(
    "forwarded, value, expected",
    [
        ("203.0.113.9", "https", "https"),
        ("203.0.113.9", "http, https", "https"),  # the client wrote the first
        ("203.0.113.9, 10.0.0.5", "https, http", "https"),  # the inner proxy was asked by http
        ("203.0.113.9, 10.0.0.5", "http, https, http", "https"),
        ("203.0.113.9, 10.0.0.5", "https", "https"),  # the inner proxy passed it on
        ("6.6.6.6, 203.0.113.9, 10.0.0.5", "https, http, http", "http"),
        ("203.0.113.9", "HTTPS", "https"),
        ("203.0.113.9", "ftp", "http"),
        ("203.0.113.9", "https; x", "http"),
        ("", "https", "https"),
    ],
)
def test_of_several_values_the_outermost_trusted_proxy_added_one(forwarded, value, expected):
    assert seen(**{"for": forwarded, "proto": value})[1] == expected
    hosts = value.replace("https", "a.example").replace("http", "b.example")
    if expected == "https" and value.islower():
        assert seen(**{"for": forwarded, "host": hosts})[2] == "a.example"


@pytest.mark.parametrize(
    "prefix", ["photos", "//evil.example", "/a/../b", "/.", '/"><script>', "/a b", "/a?b", "/a%2f"]
)
def test_a_prefix_that_is_none_is_ignored_in_a_header_and_refused_as_an_option(prefix):
    assert seen(prefix=prefix)[3:] == ("", "/")
    with pytest.raises(FoveaError, match="not a path prefix, such as /photos"):
        clean_prefix(prefix)


@pytest.mark.parametrize("text", ["10.0.0", "nginx", "10.0.0.5/33", "", "10.0.0.5:80"])
def test_a_proxy_is_an_address_or_a_network(text):
    with pytest.raises(FoveaError, match="not an IP address or network"):
        network_of(text)


def test_no_header_of_a_proxy_reaches_the_app_from_others():
    environ = {"REMOTE_ADDR": "6.6.6.6", "HTTP_FORWARDED": "for=1.2.3.4"}
    environ |= {f"HTTP_X_FORWARDED_{name}": "1" for name in ("FOR", "PORT", "BY", "PREFIX")}
    assert not [name for name in Proxies(TRUSTED).unwrapped(environ) if "FORWARDED" in name]


# The prefix


@pytest.mark.parametrize("prefix", ["/photos", "/my/photos"])
@pytest.mark.parametrize("path", ["/", "/api/status", "", "/photosets"])
def test_a_proxy_may_remove_the_prefix_or_leave_it(prefix, path):
    for sent in (prefix + path, path):
        assert seen(option=prefix, path=sent)[3:] == (prefix, path)


def test_a_prefix_like_a_path_of_the_app_is_one_that_the_proxy_has_removed(make):
    client = make()
    headers = {**BEARER, "X-Forwarded-Prefix": "/api"}
    assert client.get("/api/status", headers=headers).status_code == 200
    with pytest.raises(FoveaError, match="is one of fovea's paths"):
        make(prefix="/api/photos")


ADDRESS = re.compile(r'(?<![\w-])(?:href|src|action|data-prefix)="([^"]*)"')


@pytest.mark.parametrize("by_option", [True, False], ids=["option", "header"])
def test_every_address_in_an_answer_begins_with_the_prefix(make, by_option):
    client = make(prefix="/photos/" if by_option else "")
    headers = {**BEARER, **FORWARDED, "Accept": "text/html"}
    if by_option:
        del headers["X-Forwarded-Prefix"]
    before = "/photos" if by_option else ""
    for path in ("/", "/api/docs", "/no-such-page"):
        page = client.get(before + path, headers=headers).get_data(as_text=True)
        found = [one for one in ADDRESS.findall(page) if not one.startswith("#")]
        assert found and not [one for one in found if not f"{one}/".startswith("/photos/")]
        assert '"/api/' not in page and "'/api/" not in page
    del headers["Accept"]
    [hit, *_] = client.get(f"{before}/api/search?q=", headers=headers).json["hits"]
    assert hit["thumbnail"].startswith("/photos/api/images/")
    image = client.get(f"{before}/api/images/{hit['image_id']}", headers=headers).json
    assert image["original"] == f"/photos/api/images/{hit['image_id']}/original"
    contract = client.get(f"{before}/api/openapi.json", headers=headers).json
    assert contract["servers"] == [{"url": "/photos"}]
    problem = client.get(f"{before}/api/images/99", headers=headers).json
    assert problem["instance"] == "/photos/api/images/99"
    body = {"ids": [hit["image_id"]]}
    [found] = client.post(f"{before}/metadata", json=body, headers=headers).json
    assert found["metadata"]["url"] == f"https://{NAME}{image['original']}"


def test_the_addresses_in_the_page_all_work(make):
    client = make(prefix="/photos")
    page = client.get("/photos/", headers=BEARER).get_data(as_text=True)
    found = {one for one in ADDRESS.findall(page) if "/assets/" in one}
    assert len(found) > 5
    for address in found:
        with client.get(address, headers=BEARER) as answer:
            assert answer.status_code == 200, address


def test_the_prefix_without_a_slash_leads_to_the_page(make):
    answer = make(prefix="/photos").get("/photos", headers={**BEARER, **FORWARDED})
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"https://{NAME}/photos/"


def test_no_script_names_a_path_without_the_prefix():
    from places import CHECKOUT

    for file in (CHECKOUT / "web" / "static").rglob("*.js"):
        for line in file.read_text("utf-8").splitlines():
            if re.search(r"""["'`]/(api|assets|static)/""", line):
                known = re.search(r"\b(ask|answered|send|text|at)\(|^ *return `|^/\*\*", line)
                assert known, (file, line)


# Access


def outer(scheme="https", host=NAME, **more):
    return {"X-Forwarded-Proto": scheme, "X-Forwarded-Host": host, **more}


@pytest.mark.parametrize("prefix, path", [("", "/"), ("/photos", "/photos")])
def test_cookies_are_secure_outside_and_for_the_prefix_alone(make, prefix, path):
    client = make(prefix=prefix)
    for address in (f"{prefix}/?token={TOKEN}", f"{prefix}/?lang=en"):
        for scheme in ("https", "http"):
            headers = outer(scheme) | BEARER
            [cookie] = client.get(address, headers=headers).headers.getlist("Set-Cookie")
            parts = [part.strip() for part in cookie.split(";")]
            assert f"Path={path}" in parts and "HttpOnly" in parts and "SameSite=Strict" in parts
            assert ("Secure" in parts) is (scheme == "https")


def test_the_visit_with_the_token_leads_into_the_prefix(make):
    answer = make(prefix="/photos").get(f"/photos/api/docs?token={TOKEN}", headers=outer())
    assert answer.headers["Refresh"] == "0; url=/photos/api/docs"


@pytest.mark.parametrize(
    "headers, origin, status",
    [
        (outer(), f"https://{NAME}", 200),
        (outer(), f"https://{NAME}:443", 200),
        (outer(host=f"{NAME}:443"), f"https://{NAME}", 200),
        (outer(host=f"{NAME}:8443"), f"https://{NAME}:8443", 200),
        (outer(host=f"{NAME}:8443"), f"https://{NAME}", 403),
        (outer(), f"https://{NAME}:8443", 403),
        (outer(), f"http://{NAME}", 403),
        (outer("http"), f"http://{NAME}", 200),
        (outer("http"), f"https://{NAME}", 403),
        (outer(), "http://localhost", 403),
        (outer(), "https://evil.example", 403),
        ({"Host": NAME, "X-Forwarded-Proto": "https"}, f"https://{NAME}", 200),
    ],
)
def test_the_origin_is_compared_with_what_the_browser_sees(make, headers, origin, status):
    answer = make().post(
        "/metadata", json={"ids": []}, headers={**BEARER, **headers, "Origin": origin}
    )
    assert answer.status_code == status, answer.json


@pytest.mark.parametrize(
    "name", ["evil.example", f"x.{NAME}", f"{NAME}.evil.example", "*", "10.0.0.5"]
)
def test_a_name_that_was_not_allowed_is_refused_wherever_it_stands(make, name):
    client = make()
    assert client.get("/health", headers={**BEARER, **outer(host=name)}).status_code == 421
    assert client.get("/health", headers={**BEARER, "Host": name}).status_code == 421
    appended = outer(host=f"{NAME}, {name}")
    assert client.get("/health", headers={**BEARER, **appended}).status_code == 421


def test_a_proxy_on_this_machine_opens_nothing_to_its_visitors(make):
    client = make()
    for headers in ({}, FORWARDED, {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-For": "::1"}):
        assert client.get("/health", headers=headers).status_code == 401


def test_without_a_token_only_the_proxy_is_answered(make):
    client = make(token=None)
    for peer, status in [("127.0.0.1", 200), ("10.1.2.3", 200), ("192.0.2.7", 403), ("", 403)]:
        environ = {"REMOTE_ADDR": peer}
        for headers in ({}, FORWARDED):
            answer = client.get("/health", headers=headers, environ_overrides=environ)
            assert answer.status_code == status, peer


def test_an_undeclared_proxy_is_ignored_and_told_of_once(make, caplog):
    client = make(token=None, proxies=())
    for _ in range(3):
        page = client.get("/", headers=FORWARDED).get_data(as_text=True)
        assert 'href="/assets/' in page and 'href="/photos' not in page
    [record] = [one for one in caplog.records if one.name == "fovea.web.serving.proxies"]
    assert "--behind-proxy" in record.getMessage()


# Names


@pytest.mark.parametrize(
    "text, allowed, refused",
    [
        ("Photos.LAN", ["photos.lan", "PHOTOS.lan:8000", "photos.lan."], ["x.photos.lan"]),
        ("photos.lan:8443", ["photos.lan:8443"], ["photos.lan", "photos.lan:8000"]),
        ("photos.lan:80", ["photos.lan", "photos.lan:80"], ["photos.lan:443"]),
        ("192.0.2.7", ["192.0.2.7:8000"], ["192.0.2.8"]),
        ("2001:db8::7", ["[2001:db8::7]", "[2001:DB8:0::7]:80"], ["[2001:db8::8]", "2001:db8::7"]),
        ("[2001:db8::7]:81", ["[2001:db8::7]:81"], ["[2001:db8::7]", "[2001:db8::7:81]"]),
        ("büro.example", ["xn--bro-hoa.example"], ["buro.example"]),
    ],
)
def test_a_name_is_allowed_with_any_port_or_with_its_own(make, text, allowed, refused):
    client = make(token=None, proxies=(), hosts=[allowed_name(text)])
    for host in allowed:
        assert client.get("/health", headers={"Host": host}).status_code == 200, host
    for host in refused:
        assert client.get("/health", headers={"Host": host}).status_code == 421, host


@pytest.mark.parametrize(
    "text",
    ["*", "*.lan", "https://photos.lan", "photos.lan/x", "a b", "", ".", "[::1", "a:b", "é" * 80],
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(FoveaError, match="is not a host name"):
        allowed_name(text)


# The command


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A function that runs ``fovea serve`` with options without serving."""
    apps = []

    def serve(app, host, port, on_ready):
        apps.append(app)
        on_ready(4321)

    monkeypatch.setattr("fovea.web.serving.server.serve", serve)

    def run(*options):
        options = ["--library", str(tmp_path / "library"), "--no-browser", *map(str, options)]
        result = CliRunner().invoke(cli, ["serve", *options])
        return result, (apps[-1].test_client() if result.exit_code == 0 else None)

    return run


@pytest.mark.parametrize(
    "options, asks",
    [
        ([], False),
        (["--allow-host", "localhost:9000"], False),
        (["--allow-host", NAME], True),
        (["--behind-proxy"], True),
        (["--prefix", "/photos"], True),
        (["--host", "0.0.0.0"], True),
        (["--behind-proxy", "--no-token"], False),
        (["--no-token"], False),
        (["--allow-host", NAME, "--behind-proxy", "--no-token"], False),
        (["--host", "0.0.0.0", "--behind-proxy", "127.0.0.1", "--no-token"], False),
        (["--host", "0.0.0.0", "--behind-proxy"], True),
        (["--host", "0.0.0.0", "--behind-proxy", "10.0.0.5"], True),
        (["--behind-proxy", "10.0.0.5", "--behind-proxy"], True),
    ],
)
def test_whoever_can_be_reached_from_outside_asks_for_a_token(started, options, asks):
    result, client = started(*options)
    assert result.exit_code == 0, result.output
    assert client.get("/health").status_code == (401 if asks else 200)
    assert ("?token=" in result.stdout) is asks
    assert ("the photos are now visible" in result.stderr) is bool(
        options and options[-1] != "localhost:9000" and options != ["--no-token"]
    )


def test_the_address_outside_is_printed(started):
    options = [
        "--allow-host",
        f"{NAME},[2001:db8::7]:8443",
        "--behind-proxy",
        "--prefix",
        "/photos/",
    ]
    result, client = started(*options)
    [token] = set(re.findall(r"token=([\w-]+)", result.stdout))
    places = ["http://127.0.0.1:4321", f"https://{NAME}", "https://[2001:db8::7]:8443"]
    expected = " or ".join(f"{place}/photos/?token={token}" for place in places)
    assert result.stdout == f"fovea: open {expected} (Ctrl-C to stop)\n"
    headers = {**outer(), "Authorization": f"Bearer {token}"}
    assert client.get("/photos/health", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "options, error",
    [
        (
            ["--host", "0.0.0.0", "--no-token"],
            "--no-token would show the photos to the whole network",
        ),
        *(
            ([*options, "--no-token"], "--no-token would show the photos to whatever reaches")
            for options in (["--allow-host", NAME], ["--prefix", "/photos"])
        ),
        *(
            (
                ["--host", host, "--behind-proxy", network, "--no-token"],
                f"with --behind-proxy {network}, --no-token would show the photos to everybody",
            )
            for host in ("0.0.0.0", "127.0.0.1")
            for network in ("0.0.0.0/0", "::/0")
        ),
        (
            ["--behind-proxy", "10.0.0.5"],
            "the proxy at 10.0.0.5 cannot reach 127.0.0.1; add --host ADDRESS",
        ),
        (
            ["--host", "::1", "--behind-proxy", "fd00::/8,10.0.0.5"],
            "the proxy at fd00::/8 cannot reach ::1; add --host ADDRESS",
        ),
        (["--allow-host", "*.lan"], "'*.lan' is not a host name"),
        (["--behind-proxy=nginx"], "'nginx' is not an IP address or network"),
        (["--prefix", "photos"], "'photos' is not a path prefix"),
        (["--prefix", "/api"], "the prefix /api is one of fovea's paths"),
    ],
)
def test_an_option_that_cannot_be_meant_is_one_clear_line(started, options, error):
    result, _ = started(*options)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {error}") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args, proxies, folders",
    [
        (["--behind-proxy", "{}"], ["loopback"], 1),
        (["{}", "--behind-proxy"], ["loopback"], 1),
        (["--behind-proxy", "--port", "1"], ["loopback"], 0),
        (["--behind-proxy", "10.0.0.5", "{}"], ["10.0.0.5"], 1),
        (["--behind-proxy", "10.1.0.0/16,::1", "{}"], ["10.1.0.0/16,::1"], 1),
        (
            ["--behind-proxy", "[fd00::1]", "--behind-proxy", "loopback"],
            ["[fd00::1]", "loopback"],
            0,
        ),
        (["--behind-proxy=10.0.0.5"], ["10.0.0.5"], 0),
        (["--", "--behind-proxy", "{}"], [], 2),
    ],
)
def test_a_folder_after_the_option_is_not_taken_for_an_address(tmp_path, args, proxies, folders):
    args = [one.format(tmp_path) for one in args]
    found = command.make_context("serve", args).params
    assert list(found["proxies"]) == proxies
    assert len(found["folders"]) == folders
