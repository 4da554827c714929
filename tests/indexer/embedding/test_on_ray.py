"""A real cluster of two nodes, in processes of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

import fovea
from fovea.indexer.embedding.on_ray import check_reached, place_of
from fovea.search.errors import FoveaError
from places import HELPERS

PROGRAM = Path(__file__).with_name("ray_program.py")
PICTURES = 400


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that all processes of a run of the tests share, with whoever comes first filling it.

    It has pictures, two shards of 80 of them each, and a lock.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "on-ray"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            (folder / "many").mkdir(parents=True)
            for number in range(PICTURES):
                colour = (number % 256, number // 256 * 90, 9)
                Image.new("RGB", (8, 8), colour).save(folder / "many" / f"{number:03d}.png")
            (folder / "many" / "broken.jpg").write_bytes(b"no picture")
            files = sorted((folder / "many").glob("*.png"))
            for number in range(2):
                with tarfile.open(folder / f"{number}.tar", "w") as archive:
                    for file in files[number::2][:80]:
                        archive.add(file, arcname=file.name)
    return folder


@pytest.fixture
def many(place):
    return place / "many"


@pytest.fixture
def shards(place):
    return place / "{0..1}.tar"


def program(*arguments, code=0):
    pytest.importorskip("ray", reason="Ray, of fovea[cluster], is not installed")
    pytest.importorskip("pandas", reason="pandas, of ray[data], is not installed")
    own = Path(fovea.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(own), str(HELPERS)])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def on_two_nodes(place):
    """What came of each run on one cluster; their destinations are below the folder."""
    reports = place / "reports.json"
    with FileLock(f"{place}.lock"):
        if not reports.exists():
            shards = place / "{0..1}.tar"
            reports.write_text(program(place / "many", shards, place).splitlines()[-1])
    return json.loads(reports.read_text())


@pytest.fixture
def run_of(on_two_nodes, place, embed):
    """Return what came of a run; what it wrote is that of ``embed``."""

    def found(what):
        embed.folder = place / what
        return on_two_nodes[what]

    return found


@pytest.mark.parametrize("what", ["workers", "node"])
def test_no_row_is_lost_or_twice_when_a_part_is_killed(embed, many, run_of, what):
    report = run_of(what)
    assert len(report["killed"]) == {"workers": 2, "node": 1}[what]
    assert all(0 < embedded < PICTURES for embedded in report["killed"])
    assert (report["embedded"], report["failed"], report["missing"]) == (PICTURES, 1, 0)
    names = embed.names()
    assert len(names) == len(set(names)) == PICTURES
    assert embed.names("failed") == ["broken.jpg"]
    assert embed(many).embedded == 0  # the run without Ray finds everything done


def gone_on_with(embed, many):
    before = embed.names()
    assert 0 < len(before) < PICTURES
    assert embed(many).embedded == PICTURES - len(before)
    names = embed.names()
    assert len(names) == len(set(names)) == PICTURES


def test_a_driver_that_stops_loses_no_more_than_the_part_under_way(embed, many, run_of):
    assert run_of("stop")["stopped"]
    gone_on_with(embed, many)


def test_a_driver_that_is_killed_loses_no_more_than_the_part_under_way(embed, many):
    program(many, "die", embed.folder, code=-signal.SIGKILL)
    gone_on_with(embed, many)


@pytest.mark.parametrize("address", ["", "no address", "ray://", "h:99999", "u:p@h:1", "h:1/x"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(FoveaError, match="--ray is no address"):
        place_of(address)


def test_a_cluster_that_is_away_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        check_reached(f"127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(FoveaError, match="cannot use Ray at .*; see ray status"):
            check_reached(address)
    assert place_of("ray://[::1]:10001") == ("::1", 10001)


def test_a_model_that_nodes_do_not_have_is_named(run_of):
    assert "Ray: there is no model 'colour'" in run_of("model")["error"]


def test_shards_are_read_by_the_nodes(embed, shards, run_of):
    report = run_of("shards")
    assert (report["embedded"], report["shards"]) == (160, 2)
    assert len(set(embed.names())) == 160
    assert embed(shards).shards_unchanged == 2
