import logging
import os
from pathlib import Path

import pytest

from commands import run
from fovea.search.cluster.address import (
    FOLDER,
    TOKEN,
    Access,
    Address,
    address_of,
    local_folder,
)
from fovea.search.cluster.client import Client
from fovea.search.errors import LibraryAway, LibraryError

SECRET = "someone:s3cr3t-t0ken"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("milvus://localhost:19530/photos", Address("localhost", 19530, "photos")),
        ("milvus://localhost/photos", Address("localhost", 19530, "photos")),
        (Path("milvus://10.0.0.1:1/a_b2"), Address("10.0.0.1", 1, "a_b2")),
        ("milvus://[::1]:19530/_x", Address("::1", 19530, "_x")),
        ("/home/me/library", None),
        (Path("milvus"), None),
        ("milvus", None),
        (None, None),
    ],
)
def test_an_address_stands_where_a_folder_could(text, expected):
    assert address_of(text) == expected
    if expected is not None:
        assert address_of(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "milvus://localhost:19530",
        "milvus://localhost:19530/",
        "milvus:///name",
        "milvus://localhost:x/name",
        "milvus://localhost:99999999/name",
        "milvus://localhost/two/parts",
        "milvus://localhost/na%22me",
        "milvus://localhost/9name",
        "milvus://localhost/name?token=abc",
        "milvus://localhost/" + "n" * 101,
        "milvus://[::1/name",
        "milvus:",
    ],
)
def test_what_is_no_address_is_said_in_one_line(text):
    with pytest.raises(LibraryError, match="milvus://HOST:PORT/NAME") as caught:
        address_of(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", ["analyse", "library restore /nowhere", "mark favourite x"])
def test_commands_for_folders_alone_say_so_wherever_the_address_stands(words, monkeypatch):
    place = "milvus://127.0.0.1:9/photos"
    named = run(*words.split(), "--library", place)
    monkeypatch.setenv("FOVEA_LIBRARY", place)
    for done in (named, run(*words.split())):
        assert done.code == 1 and "not on one on Milvus; these work on both: " in done.err


@pytest.mark.parametrize(
    "text",
    [
        f"milvus://{SECRET}@localhost:19530/photos",
        f"MILVUS://{SECRET}@localhost/photos",
        f" milvus://{SECRET}@localhost/photos",
        f"milvus:{SECRET}@localhost/photos",
        f"milvus://{SECRET}@ho\u2100st/photos",  # which urllib refuses, repeating it
        f"milvus://localhost/{SECRET}@photos",
    ],
)
def test_a_token_in_an_address_is_refused_and_not_repeated(text):
    with pytest.raises(LibraryError, match=TOKEN) as caught:
        address_of(text)
    assert "s3cr3t" not in str(caught.value)
    done = run("status", "--library", text)
    assert done.code == 1 and TOKEN in done.err and "s3cr3t" not in done.err


def test_each_database_has_what_this_machine_keeps_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    address, found = Address("localhost", 19530, "photos"), {}
    for database in (None, "default", "other", "third"):
        if database is not None:
            monkeypatch.setenv("FOVEA_MILVUS_DATABASE", database)
        found[database] = local_folder(address)
    assert found[None] == found["default"] and len(set(found.values())) == 3


def test_the_token_is_nowhere_to_be_read(monkeypatch, caplog):
    monkeypatch.setenv(TOKEN, SECRET)
    client = Client(Address("127.0.0.1", 9, "photos"))
    shown = [repr(client.access), repr(client), str(client.address), f"{client.__dict__}"]
    advice = client._advice(_grpc_error(f"cannot parse {SECRET} or s3cr3t-t0ken"))
    shown += [str(advice), repr(advice)]
    assert "cannot parse" in str(advice)
    assert not any("s3cr3t" in text for text in shown), shown
    assert "s3cr3t" not in caplog.text


def test_a_server_that_still_starts_is_away_and_other_errors_are_told_as_they_are():
    client = Client(Address("127.0.0.1", 9, "photos"))
    starting = client._advice(_grpc_error("collection not fully loaded[collection=3]"))
    assert isinstance(starting, LibraryAway) and "not ready yet" in str(starting)
    other = client._advice(_grpc_error("cannot parse expression"))
    assert not isinstance(other, LibraryAway) and "cannot parse" in str(other)
    assert isinstance(client._advice(_grpc_error("StatusCode.UNAVAILABLE")), LibraryAway)
    soon = client._advice(_grpc_error("segment lacks something"))
    assert isinstance(soon, LibraryAway) and soon.code == "away"


def _grpc_error(text):
    made = type("MilvusException", (Exception,), {"__module__": "pymilvus.exceptions"})
    return made(text)


def test_nobody_there_is_one_clear_line_and_not_asked_again_at_once(monkeypatch, caplog):
    pytest.importorskip("pymilvus", reason="pymilvus is not installed (the extra cluster)")
    monkeypatch.setenv(TOKEN, SECRET)
    client = Client(Address("127.0.0.1", 9, "photos"))
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            with pytest.raises(LibraryAway, match="127.0.0.1:9 does not answer") as caught:
                client.count("photos")
            assert "\n" not in str(caught.value) and "s3cr3t" not in str(caught.value)
            assert caught.value.__cause__ is None
    assert "s3cr3t" not in caplog.text


def test_files_for_tls_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv("FOVEA_MILVUS_CA", str(tmp_path / "missing.pem"))
    with pytest.raises(LibraryError, match="FOVEA_MILVUS_CA"):
        Access.of_environment()
    (tmp_path / "missing.pem").touch()
    monkeypatch.setenv("FOVEA_MILVUS_SERVER_NAME", "milvus.example.org")
    client = Client(Address("10.0.0.1", 19530, "photos"))
    arguments = client._arguments()
    assert arguments["uri"] == "https://10.0.0.1:19530"
    assert arguments["secure"] and arguments["server_name"] == "milvus.example.org"
    assert arguments["server_pem_path"].endswith("missing.pem")
    monkeypatch.setenv("FOVEA_MILVUS_CERTIFICATE", str(tmp_path / "missing.pem"))
    with pytest.raises(LibraryError, match="FOVEA_MILVUS_KEY go together"):
        Access.of_environment()


def test_each_library_has_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    names = {local_folder(Address(*one)) for one in [("a", 1, "x"), ("a", 1, "y"), ("a", 2, "x")]}
    assert len(names) == 3 and all(name.parent == tmp_path for name in names)
    monkeypatch.setenv(FOLDER, "")
    with pytest.raises(LibraryError, match=FOLDER):
        local_folder(Address("a", 1, "x"))
    assert os.environ[FOLDER] == ""
