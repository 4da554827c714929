"""Embed on a Ray cluster of two nodes, and kill parts of it meanwhile: a program of its own.

Arguments: a folder of pictures, a pattern of shards, and a folder for destinations. On one cluster,
which takes long to start, do one after the other what ``RUNS`` names; print what came of it as
JSON. With "die" instead of shards, use one node, and kill this program after the first part.
Everything listens on the loopback alone.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the loopback
os.environ["RAY_worker_niceness"] = "0"
os.environ["RAY_prestart_worker_first_driver"] = "0"
os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"

from ray.cluster_utils import Cluster  # noqa: E402

from fovea.indexer.embedding.embed import Run, embed_into_files  # noqa: E402
from fovea.indexer.embedding.on_ray import OnRay  # noqa: E402
from fovea.indexer.embedding.sources import source_of  # noqa: E402
from fovea.search.clip.preprocess import Preprocess  # noqa: E402
from fovea.search.errors import FoveaError  # noqa: E402
from fovea.search.models.info import ModelInfo  # noqa: E402
from toys import ColourEncoder  # noqa: E402

RUNS = ("shards", "model", "workers", "stop", "node")  # the last one costs the cluster a node
HERE = {"num_cpus": 2, "node_ip_address": "127.0.0.1"}
SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500,
        "health_check_failure_threshold": 3}  # fmt: skip


class Slow(ColourEncoder):
    def encode_pixels(self, pixels):
        time.sleep(0.1)
        return super().encode_pixels(pixels)


def actors(name):
    """The processes of this program's actors of one kind."""
    return [pid for pid in below(os.getpid()) if f"({name})" in said(pid, "cmdline")]


def below(pid):
    found = []
    for child in said(pid, f"task/{pid}/children").split():
        found += [int(child), *below(int(child))]
    return found


def said(pid, name):
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


class Killing:
    """Called with the state of a run, does what is to happen once results have come."""

    def __init__(self, what, folder, cluster, second):
        self.what, self.folder, self.cluster, self.second = what, folder, cluster, second
        self.stop, self.killed = threading.Event(), []

    def __call__(self, state):
        if self.what == "die" and list(self.folder.glob("metadata/*.parquet")):
            os.kill(os.getpid(), signal.SIGKILL)
        if not state.embedded or self.killed:
            return
        if self.what == "workers":
            for name in ("MapBatches(Decoder)", "MapBatches(Encoder)"):
                for pid in actors(name)[:1]:
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(state.embedded)
        elif self.what == "node":
            self.killed.append(state.embedded)
            self.cluster.remove_node(self.second, allow_graceful=False)
        elif self.what == "stop":
            self.killed.append(state.embedded)
            self.stop.set()


def embedded(source, folder, what, cluster=None, second=None):
    killing = Killing(what, folder, cluster, second)
    model = ModelInfo("colour", Path("no"), "c0" * 32, 3, Preprocess(8), "test")
    run = Run(model, Slow, progress=killing, stop=killing.stop)
    run.engine = OnRay(
        "local" if cluster is None else cluster.address,
        model, "cpu", "float32", run.limits, 2, 16, killing.stop,
        None if what == "model" else partial(Slow),  # None: the one of this name, on each node
    )  # fmt: skip
    started = time.monotonic()
    try:
        report = embed_into_files([source_of(source)], folder, run, part=50)
    except FoveaError as exc:
        return {"error": str(exc)}
    print(what, round(time.monotonic() - started, 1), file=sys.stderr, flush=True)
    return asdict(report) | {"killed": killing.killed}


def main(source, shards, place):
    if shards == "die":
        embedded(source, Path(place), "die")
    started = time.monotonic()
    head = HERE | {"include_dashboard": False, "_system_config": SOON}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(**HERE)
    cluster.wait_for_nodes()
    print("cluster", round(time.monotonic() - started, 1), file=sys.stderr, flush=True)
    reports = {
        what: embedded(
            shards if what == "shards" else source, Path(place, what), what, cluster, second
        )
        for what in RUNS
    }
    print(json.dumps(reports), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
