import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from fovea.indexer.scanning.pipeline import Progress
from fovea.web.jobs import process
from fovea.web.jobs import scans as module
from worker_programs import INDEXING, TALKING, running_instead, until

FALLING = "import os; os._exit(3)"
REFUSING = """
import json, sys
print(json.dumps({"error": "the model is gone"}), flush=True); sys.exit(1)
"""


@pytest.fixture
def running(app):
    """The scans of the app, which end with the test."""
    return app.extensions["fovea.scans"]


@pytest.fixture
def processes(monkeypatch):
    """The processes that are started during a test."""
    found, popen = [], subprocess.Popen

    def started(*args, **options):
        found.append(popen(*args, **options))
        return found[-1]

    monkeypatch.setattr(subprocess, "Popen", started)
    return found


def ended(client):
    def document():
        scan = client.get("/api/scans").json["scan"]
        return scan if scan["state"] != "running" else None

    return until(document)


def gone(process_id):
    """Whether a process has ended; one that its parent has not asked about yet has ended too."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


# What the API says


def test_there_is_no_scan_before_the_first(client):
    assert client.get("/api/scans").json == {"scan": None}
    response = client.delete("/api/scans/current")
    assert (response.status_code, response.json) == (202, {"scan": None})


def test_new_pictures_are_indexed_and_found(client, photos, running, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(INDEXING))
    Image.new("RGB", (40, 30), "orange").save(photos / "orange.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    response = client.post("/api/scans", json={"root": None})
    assert response.status_code == 202
    scan = response.json["scan"]
    assert (scan["id"], scan["state"], scan["found"]) == (1, "running", 0)
    scan = ended(client)
    assert (scan["state"], scan["message"], scan["seconds_left"]) == ("done", None, None)
    counts = ("found", "done", "embedded", "failed", "skipped")
    assert [scan[name] for name in counts] == [10, 10, 1, 1, 0]
    [hit, *_] = client.get("/api/search?q=orange").json["hits"]
    assert hit["name"] == "orange.png"
    assert client.get(hit["thumbnail"]).status_code == 200
    [failure] = client.get("/api/failures").json["failures"]
    assert failure["path"] == str(photos / "broken.jpg") and "broken" in failure["reason"]


def test_a_folder_that_is_added_is_indexed(client, running, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(INDEXING))
    folder = tmp_path / "caf\udce9 <b>"  # a name that is not UTF-8
    folder.mkdir()
    Image.new("RGB", (40, 30), "orange").save(folder / "orange.png")
    library = client.application.extensions["fovea"].library
    root = library.add_root(folder)
    scan = client.post("/api/scans", json={"root": root.id}).json["scan"]
    assert scan["roots"] == [str(folder).replace("\udce9", "\\udce9")]
    assert ended(client)["embedded"] == 1
    assert client.get("/api/roots").json["roots"][-1]["images"] == 1


def test_a_folder_that_cannot_be_reached_is_named(client, photos, running, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(INDEXING))
    photos.rename(photos.with_name("elsewhere"))
    assert client.post("/api/scans", json={"root": None}).json["scan"]["unreached"] == []
    scan = ended(client)
    assert (scan["state"], scan["found"], scan["unreached"]) == ("done", 0, [str(photos)])


def test_an_ignore_file_that_cannot_be_used_is_named(client, photos, running, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(INDEXING))
    rules = photos / ".foveaignore"
    rules.write_bytes(b"private\\\n")
    assert client.post("/api/scans", json={"root": None}).json["scan"]["ignore_files"] == []
    scan = ended(client)
    assert (scan["state"], scan["found"], scan["unreached"]) == ("done", 0, [])
    assert scan["ignore_files"] == [str(rules)]
    assert f"{rules}: line 1 is not a valid pattern" in scan["message"]


def test_progress_is_shown_and_a_scan_can_be_stopped(client, running, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(TALKING))
    client.post("/api/scans", json={"root": None})
    scan = until(lambda: (s := client.get("/api/scans").json["scan"])["found"] and s)
    assert (scan["done"], scan["embedded"], scan["failed"], scan["skipped"]) == (4, 2, 1, 1)
    assert (scan["rate"], scan["seconds_left"]) == (2.0, 3.0)  # 6 files at 2 a second
    assert client.delete("/api/scans/current").status_code == 202
    scan = ended(client)
    assert (scan["state"], scan["found"], scan["done"], scan["embedded"]) == ("stopped", 10, 5, 3)


@pytest.mark.parametrize(("walking", "left"), [(True, None), (False, 4.0)])
def test_the_time_left_is_known_once_all_files_are_counted(
    client, running, monkeypatch, walking, left
):
    said = json.dumps({"progress": asdict(Progress(8, 2, 1, 0, 1, 1.5, walking=walking))})
    program = f"import sys; print({said!r}, flush=True); sys.stdin.readline(); sys.stdin.readline()"
    monkeypatch.setattr(module, "command", running_instead(program))
    client.post("/api/scans", json={"root": None})
    scan = until(lambda: (s := client.get("/api/scans").json["scan"])["found"] and s)
    assert (scan["skipped"], scan["seconds_left"]) == (1, left)


def test_one_scan_runs_at_a_time_and_the_next_one_follows(client, running, processes, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(TALKING))
    [root] = client.get("/api/roots").json["roots"]
    assert client.post("/api/scans", json={"root": None}).json["scan"]["id"] == 1
    for _ in range(3):  # asked for thrice, done once
        assert client.post("/api/scans", json={"root": root["id"]}).json["scan"]["id"] == 1
    [first] = processes
    first.stdin.close()
    scan = until(lambda: (s := client.get("/api/scans").json["scan"])["id"] == 2 and s)
    assert scan["roots"] == [root["path"]]
    client.delete("/api/scans/current")
    assert ended(client)["id"] == 2


def test_files_to_read_anew_wait_together(client, running, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(TALKING))
    monkeypatch.setattr(module, "REREAD_AT_ONCE", 3)
    client.post("/api/scans", json={"root": None})
    for name in "abbacde":
        running.start([Path(f"/photos/{name}")], reread=True)
    running.start([Path("/photos")])
    waiting = tuple(Path(f"/photos/{name}") for name in "abc")
    assert running._waiting == [(waiting, True, False), ((Path("/photos"),), False, False)]
    client.delete("/api/scans/current")
    assert ended(client)["id"] == 1


def test_stopping_forgets_what_waits(client, running, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(TALKING))
    [root] = client.get("/api/roots").json["roots"]
    client.post("/api/scans", json={"root": None})
    client.post("/api/scans", json={"root": root["id"]})
    client.delete("/api/scans/current")
    assert ended(client)["id"] == 1


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (FALLING, "the indexing process ended unexpectedly (exit code 3); see the server's log"),
        (REFUSING, "the model is gone"),
    ],
)
def test_a_scan_that_fails_says_why_and_the_next_one_runs(
    client, running, monkeypatch, program, message
):
    monkeypatch.setattr(module, "command", running_instead(program))
    client.post("/api/scans", json={"root": None})
    scan = ended(client)
    assert (scan["state"], scan["message"]) == ("failed", message)
    monkeypatch.setattr(module, "command", running_instead(TALKING))
    assert client.post("/api/scans", json={"root": None}).json["scan"]["id"] == 2
    client.delete("/api/scans/current")
    assert ended(client)["state"] == "stopped"


def test_a_scan_that_nobody_could_follow_ends_and_the_next_one_runs(
    client, running, processes, monkeypatch
):
    monkeypatch.setattr(module, "command", running_instead(TALKING))
    true = threading.Thread.start

    def start(thread):
        if thread._target == running._follow:
            raise RuntimeError("can't start new thread")
        true(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        scan = client.post("/api/scans", json={"root": None}).json["scan"]
    assert scan["state"] == "failed"
    assert scan["message"] == "cannot start indexing: can't start new thread"
    assert processes[0].poll() is not None
    assert client.post("/api/scans", json={"root": None}).json["scan"]["id"] == 2
    client.delete("/api/scans/current")
    assert ended(client)["state"] == "stopped"


# The same process, but of a model that ends it at a picture.
ENDING = INDEXING.replace(
    "toy =",
    """
import os, signal
real = encoder.encode_pixels
def ending(pixels):
    if (abs(pixels[:, 0, 0].astype(int) - (250, 3, 77)) < 2).all(axis=1).any():
        END
    return real(pixels)
encoder.encode_pixels = ending
toy =""",
)


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.abort()", "SIGABRT"),
        ("os._exit(7)", "exit code 7"),
        ("raise SystemExit(7)", "exit code 7"),
    ],
)
def test_the_file_at_which_a_process_ends_is_named(client, photos, running, monkeypatch, end, how):
    monkeypatch.setattr(module, "command", running_instead(ENDING.replace("END", end)))
    name = "odd\nname \udce9.png"
    Image.new("RGB", (40, 30), (250, 3, 77)).save(photos / name)
    client.post("/api/scans", json={"root": None})
    scan = ended(client)
    shown = f"{photos}/odd\\nname \\udce9.png"
    assert (scan["state"], scan["code"], scan["in_hand"]) == ("failed", "unexpected", [shown])
    assert scan["message"] == (
        f"the indexing process ended unexpectedly ({how}) while embedding {shown}; "
        "see the server's log"
    )
    (photos / name).unlink()
    client.post("/api/scans", json={"root": None})
    scan = ended(client)
    assert (scan["state"], scan["code"], scan["in_hand"]) == ("done", None, [])


def test_of_many_files_in_hand_the_first_few_are_named(client, photos, running, monkeypatch):
    end = "os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(module, "command", running_instead(ENDING.replace("END", end)))
    for number in range(20):
        Image.new("RGB", (40, 30 + number), (250, 3, 77)).save(photos / f"{number}.png")
    client.post("/api/scans", json={"root": None})
    scan = ended(client)
    assert 1 <= len(scan["in_hand"]) <= process.NAMED
    assert set(scan["in_hand"]) <= {str(photos / f"{number}.png") for number in range(20)}
    assert scan["in_hand"][0] in scan["message"]


def test_nothing_is_in_hand_before_and_after_all_files(tmp_path):
    in_hand = process.InHand()
    assert in_hand.read() is None
    process.note_in_hand(in_hand.descriptor, "decoding", [b"/a/\xff.jpg", b"/b.jpg"])
    assert in_hand.read() == ("decoding", ["/a/\udcff.jpg", "/b.jpg"], 2)
    process.note_in_hand(in_hand.descriptor, "storing", [b"/b.jpg"] * 40)
    assert in_hand.read() == ("storing", ["/b.jpg"] * process.NAMED, 40)
    process.note_in_hand(in_hand.descriptor, "", [])
    assert in_hand.read() is None
    os.pwrite(in_hand.descriptor, b"torn", 0)
    assert in_hand.read() is None
    in_hand.close()


def test_a_process_that_cannot_be_started_is_a_failed_scan(client, running, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    scan = client.post("/api/scans", json={"root": None}).json["scan"]
    assert scan["state"] == "failed" and "cannot start indexing" in scan["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [({"root": 99}, 404), ({"root": -1}, 404), ({"root": 2**70}, 404), ({"root": "1"}, 400)]
    + [({"root": True}, 400), ({"root": 1.5}, 400), ({"root": [1]}, 400), ([], 400), ("x", 400)]
    + [({"root": None, "more": 1}, 400)],
)
def test_a_folder_that_is_none_is_refused(client, running, body, status):
    response = client.post("/api/scans", json=body)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    assert running.document() is None


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [(b"{", "application/json", 400), (b"", "application/json", 400)]
    + [(b"{}", "text/plain", 415), (b" " * (2 << 20), "application/json", 413)],
)
def test_a_body_that_is_none_is_refused(client, running, data, kind, status):
    assert client.post("/api/scans", data=data, content_type=kind).status_code == status
    assert running.document() is None


def test_another_page_cannot_scan(client, running):
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert client.post("/api/scans", json={"root": None}, headers=headers).status_code == 403
    assert client.delete("/api/scans/current", headers=headers).status_code == 403
    assert running.document() is None


# The end of the server


def test_nothing_runs_once_the_app_has_ended(app, running, processes, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(TALKING))
    running.start()
    running.start([Path("/another")])
    app.extensions["fovea"].closing.set()
    running.close()
    assert [gone(process.pid) for process in processes] == [True]
    until(lambda: running.document()["state"] != "running")
    with pytest.raises(module.Problem):
        running.start()


def test_a_process_that_does_not_heed_is_ended(app, running, processes, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead("import time; time.sleep(600)"))
    monkeypatch.setattr(process, "PATIENCE_S", 0.1)
    running.start()
    running.close()
    assert [gone(process.pid) for process in processes] == [True]


SERVER = """
import subprocess, sys, time
program, scanning = sys.argv[1:3]
child = subprocess.Popen([sys.executable, "-c", program, *sys.path], stdin=subprocess.PIPE)
child.stdin.write(scanning.encode() + b"\\n"); child.stdin.flush()
print(child.pid, flush=True)
time.sleep(600)
"""


def test_no_orphan_is_left_where_the_server_is_killed(tmp_path):
    """Even where the process is busy with something that looks at no signs: it loads a model."""
    program = INDEXING.replace(
        "from fovea.web.jobs.index_worker import main",
        "import time, fovea.web.jobs.process; fovea.web.jobs.process.FAREWELL_S = 0.2\n"
        "fovea.search.models.resolve.resolve_model = lambda *asked: time.sleep(600)\n"
        "from fovea.web.jobs.index_worker import main",
    )
    asked = json.dumps({"library": str(tmp_path / "library"), "folders": [], "model": None})
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, program, asked], stdout=subprocess.PIPE, env=environment
    )
    with server.stdout:
        child = int(server.stdout.readline())
        until((tmp_path / "library" / "library.db").exists)
        assert not gone(child)
        server.send_signal(signal.SIGKILL)
        server.wait()
    until(lambda: gone(child), 20)


# What it does, and whose turn it is


@pytest.mark.parametrize(
    ("before", "now", "doing"),
    [
        ("starting", {"walking": True, "found": 9, "done": 0}, "counting"),
        ("counting", {"walking": False, "found": 9, "done": 0}, "indexing"),
        ("loading", {"walking": True, "found": 9, "done": 0}, "loading"),
        ("indexing", {"walking": True, "found": 9, "done": 3}, "indexing"),
        ("indexing", {"walking": False, "found": 9, "done": 9}, "finishing"),
        ("waiting", {"walking": False, "found": 0, "done": 0}, "finishing"),
    ],
)
def test_progress_says_what_is_done(before, now, doing):
    assert module._doing(now, before) == doing


def test_a_scan_says_when_the_model_is_loaded(client, photos, running, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(INDEXING))
    Image.new("RGB", (40, 30), "orange").save(photos / "orange.png")
    told = []
    show = running._show
    monkeypatch.setattr(running, "_show", lambda new: (told.append(new.get("doing")), show(new)))
    assert running.start()["doing"] == "starting"
    assert ended(client)["doing"] is None
    assert "loading" in told and "indexing" in told[told.index("loading") :]


def test_a_folder_knows_its_turn(client, app, photos, running, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "command", running_instead(TALKING))
    library = app.extensions["fovea"].library
    (tmp_path / "other").mkdir()
    (photos / "inner").mkdir()
    for folder in (tmp_path / "other", photos / "inner"):
        library.add_root(folder)
    turns = lambda: [root["scan"] for root in client.get("/api/roots").json["roots"]]  # noqa: E731
    assert turns() == [None, None, None]
    running.start([photos])
    assert turns() == ["running", None, "running"]
    running.start([tmp_path / "other"])
    assert turns() == ["running", "waiting", "running"]
    running.start([photos / "red.png"], reread=True)  # single files are no folder's turn
    running.stop()
    ended(client)
    assert turns() == [None, None, None]
