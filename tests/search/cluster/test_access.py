"""Who may ask Milvus, and how: tokens and TLS, and where secrets never are."""

import logging
import os
import shutil
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest

from coloured import COLOURS, encoded
from commands import run, settle
from fovea.search.cluster.address import FOLDER, TOKEN, Address
from fovea.search.cluster.client import Client
from fovea.search.cluster.collections import Cluster
from fovea.search.errors import LibraryAway, LibraryError
from fovea.web.app import create_app
from libraries import running_server
from milvus_server import SMALL
from small_clips import write_model

BASE = "http://localhost"
NAME = "milvus.example.org"
RIGHT, WRONG = "root:Milvus", "someone:s3cr3t-t0ken"
SECRETS = ("root:Milvus", "s3cr3t", "cm9vdDpNaWx2dXM", "c29tZW9uZTpzM2NyM3QtdDBrZW4")
LINES = {  # what is said, by the token
    RIGHT: None,
    WRONG: "refuses this user; check FOVEA_MILVUS_TOKEN",
    None: "refuses this user; check FOVEA_MILVUS_TOKEN",
}


def openssl(folder, *words):
    program = shutil.which("openssl")
    if program is None:
        reason = "no openssl on this machine (apt-get install openssl)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    done = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """An authority, certificates of a server and a client that it signs, and another authority."""
    folder = tmp_path_factory.mktemp("papers")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("authority", "other"):
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl(folder, "req", "-x509", *curve, "-days", "2", "-subj", f"/CN={name}", *files)
    (folder / "names").write_text(f"subjectAltName=DNS:{NAME}")
    for name in ("server", "client"):
        files = ("-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(folder, "req", *curve, "-subj", f"/CN={name}", *files)
        signed = ("-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial")
        files = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "names")
        openssl(folder, "x509", "-req", *signed, "-days", "2", *files)
    return folder


@pytest.fixture(scope="module")
def guarded(papers):
    """A server that asks for a token and TLS: at first, of clients with a certificate alone."""
    settings = SMALL | {
        "common.security.tlsMode": "2",
        "tls.serverPemPath": str(papers / "server.pem"),
        "tls.serverKeyPath": str(papers / "server.key"),
        "tls.caPemPath": str(papers / "authority.pem"),
    }
    with running_server(authorization=True, settings=settings) as server:
        yield server


@pytest.fixture
def trusted(papers, monkeypatch, tmp_path):
    """The environment of a client that the server takes, but for its token."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "milvus"))
    names = {"CA": "authority.pem", "CERTIFICATE": "client.pem", "KEY": "client.key"}
    for name, file in names.items():
        monkeypatch.setenv(f"FOVEA_MILVUS_{name}", str(papers / file))
    monkeypatch.setenv("FOVEA_MILVUS_SERVER_NAME", NAME)
    return monkeypatch


def address_of(guarded, name="guarded"):
    return Address("127.0.0.1", guarded.port, name)


def asked(guarded):
    client = Client(address_of(guarded))
    try:
        return client.run("list_collections")
    finally:
        client.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"CA": "other.pem"}, "do not agree on TLS"),
        ({"CA": "client.key"}, "do not agree on TLS"),
        ({"KEY": "server.key"}, "do not agree on TLS"),
        ({"SERVER_NAME": ""}, "do not agree on TLS"),
        ({"CERTIFICATE": None, "KEY": None}, "TLS"),  # what is said of it depends on the moment
        ({"CERTIFICATE": None, "KEY": None, "CA": None}, "does not answer; .* without TLS"),
    ],
    ids=str,
)
def test_certificates_that_fit_and_others(guarded, papers, trusted, changes, said):
    trusted.setenv(TOKEN, RIGHT)
    for name, value in changes.items():
        if value is None:
            trusted.delenv(f"FOVEA_MILVUS_{name}")
        else:
            trusted.setenv(f"FOVEA_MILVUS_{name}", value and str(papers / value))
    if said is None:
        asked(guarded)
    else:
        with pytest.raises(LibraryAway, match=said) as caught:
            asked(guarded)
        assert "\n" not in str(caught.value)


def test_a_certificate_that_does_not_fit_is_one_line_on_the_terminal(guarded, papers, trusted):
    trusted.setenv("FOVEA_MILVUS_CA", str(papers / "other.pem"))
    words = ("-m", "fovea", "status", "--library", str(address_of(guarded)))
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()  # gRPC writes nothing either
    assert line.startswith("Error: ") and "do not agree on TLS" in line


def places_of(folder):
    """All bytes below a folder."""
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


class CommandLines:
    """The command lines of all processes, looked at again and again."""

    def __init__(self):
        self.seen, self.is_over = set(), False
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.is_over:
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(file.read_bytes())
                except OSError:
                    continue

    def __enter__(self):
        self.thread.start()
        return self.seen

    def __exit__(self, *error):
        self.is_over = True
        self.thread.join()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("model", "second")):
        write_model(folder / name, seed=seed)
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(COLOURS):
        (folder / f"{colour}.png").write_bytes(encoded(colour, number))
    return folder


@pytest.mark.parametrize("token", LINES, ids=["right", "wrong", "none"])
def test_the_token_is_in_nothing_that_any_command_says(
    guarded, trusted, model, photos, tmp_path, token, caplog, capfd
):
    settle(trusted, model)
    trusted.setenv(TOKEN, token or "")
    place = str(address_of(guarded))
    there = ("--library", place)
    commands = [
        ("index", photos, *there, "--model", model / "model", "--workers", 1),
        ("status", *there),
        ("status", *there, "--json"),
        ("search", "the dog", *there),
        ("search", "text:dog", *there),
        ("search", "camera:x", *there, "--json"),
        ("similar", photos / "red.png", *there),
        ("verify", *there),
        ("verify", *there, "--json"),
        ("roots", "list", *there),
        ("library", "copy", place, tmp_path / "copy", "--json"),
        ("library", "copy", tmp_path / "copy", place),
        ("models", "use", model / "second", *there, "--workers", 1),
        ("roots", "remove", photos, *there),
        ("roots", "remove", "/nowhere", *there),
        ("mark", "list", *there),
        ("embed", photos, "--to", place, "--workers", 1),
    ]
    said = []
    with caplog.at_level(logging.DEBUG), CommandLines() as seen:
        for words in commands:
            done = run(*words)
            said += [done.out, done.err]
            if LINES[token] is not None and words[0] not in ("mark",):
                [line] = [line for line in done.err.splitlines() if line.startswith("Error: ")]
                assert done.code == 1, words
                assert LINES[token] in line or "no library" in line, (words, line)
            elif words[0] not in ("mark",) and "text:dog" not in words and "/nowhere" not in words:
                assert done.code == 0, (words, done.err)
        said += served(place, LINES[token])
        said += raised(guarded)
    said += [caplog.text, *capfd.readouterr(), places_of(tmp_path).decode("latin-1")]
    said += [line.replace(b"\0", b" ").decode("latin-1") for line in seen]
    for secret in SECRETS:
        assert not any(secret in text for text in said), secret


def served(place, expected):
    """What a server answers, whose page comes in any case."""
    app = create_app(Path(place), testing=True)
    client, said = app.test_client(), []
    for path in ("/", "/api/status", "/api/search?q=the+dog", "/api/facets", "/api/images/7"):
        answer = client.get(path, base_url=BASE)
        said += [answer.get_data(as_text=True), str(answer.headers)]
        if expected is not None and path.startswith("/api"):
            assert answer.status_code == 503 and answer.json["code"] == "away_refused", path
            assert expected in answer.json["detail"]
    app.extensions["fovea"].close()
    return said


def raised(guarded):
    """What is shown of a connection, and of an error with its traceback."""
    cluster = Cluster(address_of(guarded))
    said = [repr(cluster.client), repr(cluster.client.access), str(vars(cluster.client))]
    try:
        cluster.client.query("no such collection", "number >= 0", ["number"])
    except LibraryError as exc:
        said += [str(exc), repr(exc), "".join(traceback.format_exception(exc))]
    else:
        pytest.fail("a collection that is not there was found")
    cluster.close()
    return said


def test_an_authority_alone_is_enough_where_no_certificate_is_asked_for(guarded, papers, trusted):
    guarded.stop()  # the last of this file, since it changes the server
    guarded.settings["common.security.tlsMode"] = "1"
    guarded.start()
    for name in ("CERTIFICATE", "KEY"):
        trusted.delenv(f"FOVEA_MILVUS_{name}")
    trusted.setenv(TOKEN, RIGHT)
    asked(guarded)
    trusted.setenv("FOVEA_MILVUS_CA", str(papers / "other.pem"))
    with pytest.raises(LibraryAway, match="do not agree on TLS"):
        asked(guarded)
