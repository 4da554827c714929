"""Embed on a Ray cluster: decode on actors of CPU, encode on actors that hold the model once.

Orders go out in windows, each a Ray Data pipeline of its own. An order's results are the same rows
in the same order whoever carries it out, so that what a lost node had done is simply done again.
The driver writes, so a row is written once.
"""

import contextlib
import logging
import os
import pickle
import queue
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

import fovea
from fovea.indexer.decoding.limits import Limits, one_line
from fovea.indexer.scanning.refusals import encoded
from fovea.indexer.workers.host import available_cores, step_back
from fovea.indexer.workers.pool import USUAL_BATCH, Pool, batch_of
from fovea.search.errors import FoveaError
from fovea.search.models.info import ModelInfo

from .here import Decoding, result_of
from .items import Item, Order, Result
from .reading import contents

__all__ = ["OnRay"]

WINDOW = 20_000  # orders in one pipeline: 1.28 million files
CHUNK = 64  # pictures decoded at a time
STREAMED = 64 << 20  # bytes of contents that a decoder holds of them
SHARE = 0.5  # of a CPU that a decoder asks for, so that half of the nodes can take all of them
WAITING = 4  # batches of results that wait for the writer
TICK_S = 0.1
PATIENCE_S = 2.0  # for the thread of a run that was stopped
BLOCK = 32 << 20  # bytes of decoded pictures that are handed over at a time
NICE = 10  # of decoding, so that it does not interrupt the threads of a model
HELD = 256 << 20  # bytes of decoded pictures that wait for encoders, and beside them
HELD_EACH = 128 << 20  # for each decoder; two blocks of each are under way
REACHED_S = 10.0  # within which a cluster has to take a connection; Ray would try for minutes
INSTALL = "pip install 'fovea[cluster]'"


class OnRay:
    """A Ray cluster as an engine; ``address`` "local" starts one on this machine's loopback.

    ``workers`` is how many processes decode, by default one for each CPU of the cluster. Memory is
    bounded: a decoder holds ``STREAMED`` bytes of contents, or one that is larger, and the next;
    the object stores of all nodes together ``HELD`` and ``HELD_EACH`` for each decoder; and who is
    behind holds the others back.
    """

    def __init__(
        self,
        address: str,
        model: ModelInfo,
        device: str,
        dtype: str,
        limits: Limits,
        workers: int | None,
        batch_size: int | None,
        stop: threading.Event,
        load: Callable[[], Any] | None = None,
    ) -> None:
        self.address, self.model, self.limits, self.device = address, model, limits, device
        self.load = load or partial(load_here, model, device, dtype)  # called on a node
        self.workers, self.batch_size, self.stop = workers, batch_size, stop
        place_of(address)
        _installed(address)

    def results(self, orders: Iterable[Order | None]) -> Iterator[Result | None]:
        """Yield what became of each item once, in any order; None now and then.

        Once ``stop`` is set, end: what is under way is left to another run.
        """
        ray, data = _installed(self.address)
        own = not ray.is_initialized()
        if own:
            self._connect(ray)
        try:
            waiting = iter(orders)
            while window := list(self._window(waiting)):
                yield from self._polled(ray, self._pipeline(ray, data, window))
                if self.stop.is_set():
                    return
        finally:
            if own:
                ray.shutdown()

    def _polled(self, ray: Any, found: Iterator[list[Result]]) -> Iterator[Result | None]:
        """Iterate in another thread, so that a run can be stopped while nothing comes."""
        batches: queue.Queue[list[Result] | BaseException | None] = queue.Queue(WAITING)

        def iterate() -> None:
            try:
                for batch in found:
                    while not self.stop.is_set():
                        with contextlib.suppress(queue.Full):
                            batches.put(batch, timeout=TICK_S)
                            break
                    if self.stop.is_set():
                        return
                batches.put(None)
            except BaseException as exc:  # whatever it is, the caller must see it
                batches.put(exc)

        thread = threading.Thread(target=iterate, name="fovea-ray", daemon=True)
        thread.start()
        while not self.stop.is_set():
            try:
                batch = batches.get(timeout=TICK_S)
            except queue.Empty:
                yield None
                continue
            if batch is None:
                return
            if isinstance(batch, FoveaError):
                raise batch
            if isinstance(batch, ray.exceptions.RayError | ray.exceptions.UserCodeException):
                raise FoveaError(f"Ray: {_reason(batch)}; run the command again") from batch
            if isinstance(batch, BaseException):
                raise batch
            yield from batch
        thread.join(PATIENCE_S)

    def _window(self, orders: Iterator[Order | None]) -> Iterator[Order]:
        """Take orders for one pipeline."""
        found = (order for order in orders if order is not None)
        for order in islice(found, WINDOW):
            if self.stop.is_set():
                return
            yield order

    def _connect(self, ray: Any) -> None:
        check_reached(self.address)
        quiet: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "configure_logging": True,
        }
        if self.address == "local":
            quiet |= {
                "num_cpus": max(self.workers or 1, available_cores()),
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",  # then nothing listens on other addresses
            }
        try:
            with _silenced():
                ray.init(address=self.address, **quiet)
        except Exception as exc:  # of many types: nobody there, another version, no right
            raise FoveaError(
                f"cannot use Ray at {self.address}: {_reason(exc)}; see ray status there"
            ) from exc

    def _pipeline(self, ray: Any, data: Any, window: list[Order]) -> Iterator[list[Result]]:
        """Yield results as they come, some at a time."""
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = BLOCK
        context.max_errored_blocks = 0
        resources = ray.cluster_resources()
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        gpus = int(resources.get("GPU", 0)) if self.device != "cpu" else 0
        decoders = self.workers or max(1, int(resources.get("CPU", 1)))
        decoders = min(decoders, len(window))
        encoders = min(gpus or max(1, len(nodes)), decoders)
        pool = data.ActorPoolStrategy
        told = {
            "model": self.model,
            "limits": self.limits,
            "version": fovea.__version__,
        }
        share = min(SHARE, resources.get("CPU", 1.0) * SHARE / decoders)
        context.execution_options.resource_limits = data.ExecutionResources.for_limits(
            object_store_memory=HELD + HELD_EACH * decoders
        )
        together = self.batch_size or (256 if gpus else USUAL_BATCH)
        packed = [{"order": pickle.dumps(order)} for order in window]
        found = (
            data.from_items(packed, override_num_blocks=len(packed))
            .map_batches(
                Decoder,
                fn_constructor_kwargs=told,
                batch_size=1,
                batch_format="numpy",
                compute=pool(min_size=1, max_size=decoders, max_tasks_in_flight_per_actor=2),
                num_cpus=share,
            )
            .map_batches(
                Encoder,
                fn_constructor_kwargs=told | {"load": self.load, "size": self.batch_size},
                batch_size=together if together > CHUNK else None,  # None: blocks as they come
                batch_format="numpy",
                compute=pool(min_size=1, max_size=encoders, max_tasks_in_flight_per_actor=2),
                num_cpus=0 if gpus else share,
                num_gpus=1 if gpus else None,
            )
        )
        for batch in found.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
            yield [pickle.loads(one) for one in batch["result"]]


def place_of(address: str) -> tuple[str, int] | None:
    """Return the host and port of a cluster's address; None for "local" and "auto".

    Raise ``FoveaError`` for what is no address.
    """
    if address in ("local", "auto"):
        return None
    match = re.fullmatch(r"(?:ray://)?\[?([^\s/@\]]+)\]?:(\d{1,5})", address)
    if match is None or int(match.group(2)) > 65535:
        raise FoveaError("--ray is no address: write local, auto, HOST:PORT or ray://HOST:PORT")
    return match.group(1), int(match.group(2))


def check_reached(address: str) -> None:
    """Raise ``FoveaError`` if nobody listens where a cluster should be."""
    place = place_of(address)
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=REACHED_S).close()
    except OSError as exc:
        why = exc.strerror or str(exc) or type(exc).__name__
        raise FoveaError(
            f"cannot use Ray at {address}: {one_line(why)}; see ray status there"
        ) from exc


def _installed(address: str) -> tuple[Any, Any]:
    """Import Ray, which is not to report anything. Raise ``FoveaError`` if it is missing."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of what it writes to standard error
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a thread that is still there after a stop
    if address == "local":
        # Otherwise it takes this machine's address in the network for 127.0.0.1.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
        import ray.data
    except ImportError as exc:
        raise FoveaError(f"--ray needs Ray: {INSTALL}") from exc
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray, ray.data


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Discard what Ray's core writes to standard error as it starts."""
    sys.stderr.flush()
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _reason(exc: BaseException) -> str:
    """Say in one line why Ray gave up: the innermost cause, which may be ours.

    Ray's ``SystemException`` is a cause that says nothing, and what an actor could not start for is
    the last line of a traceback in the message.
    """
    while True:
        cause = getattr(exc, "cause", None) or exc.__cause__
        if not isinstance(cause, BaseException) or not str(cause).strip():
            break
        exc = cause
    lines = [line for line in str(exc).splitlines() if line.strip()] or [type(exc).__name__]
    if isinstance(exc, FoveaError):
        return one_line(lines[-1])
    ours = re.match(r"fovea\.[\w.]+: (.+)", lines[-1])
    return one_line(ours.group(1) if ours else lines[0])


def check_version(version: str) -> None:
    """Raise ``FoveaError`` if the driver is another fovea."""
    if version != fovea.__version__:
        raise FoveaError(
            f"a node has fovea {fovea.__version__}, the driver {version}; install the same"
        )


def chunks(entries: Iterable[Item | Result | None]) -> Iterator[list[Item | Result]]:
    """Yield entries together: up to ``CHUNK``, of ``STREAMED`` bytes of contents or one entry."""
    chunk: list[Item | Result] = []
    held = 0
    for entry in entries:
        if entry is None:
            continue
        size = len(entry.data or b"") if isinstance(entry, Item) else 0
        if chunk and (len(chunk) >= CHUNK or held + size > STREAMED):
            yield chunk
            chunk, held = [], 0
        chunk.append(entry)
        held += size
    if chunk:
        yield chunk


class Decoder:
    """An actor with one decoding process. Called with an order, it yields rows of pixels."""

    def __init__(self, model: ModelInfo, limits: Limits, version: str) -> None:
        check_version(version)
        self._limits, self._size = limits, model.preprocess.size
        step_back(NICE)
        self._pool = Pool(model.preprocess, limits, workers=1, batch_size=CHUNK)

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        for packed in batch["order"]:
            order = pickle.loads(packed)
            for chunk in chunks(contents([order], self._limits)):
                yield self._decoded(chunk)

    def _decoded(self, entries: list[Item | Result]) -> dict[str, Any]:
        """Return a row for each entry, in their order: a result, and pixels where it is not one.

        Pixels are uint8 (n, size, size, 3), zeros where a result is final: an array is handed from
        process to process without being copied.
        """
        places = {id(entry): place for place, entry in enumerate(entries)}
        rows = [b""] * len(entries)
        pixels = np.zeros((len(entries), self._size, self._size, 3), np.uint8)
        decoding = Decoding(self._limits)
        known = {entry.id: places[id(entry)] for entry in entries if isinstance(entry, Item)}
        for place, entry in enumerate(entries):
            if isinstance(entry, Result):
                rows[place] = pickle.dumps(entry)
        tasks = decoding.tasks(entry for entry in entries if isinstance(entry, Item))
        for outcome in self._pool.outcomes(tasks):
            if outcome is None:
                continue
            item = decoding.item(outcome)
            bare = outcome.__class__(
                outcome.task._replace(data=None), outcome.outcome, None, outcome.hash,
                outcome.bytes, outcome.size, outcome.mtime_ns, outcome.ctime_ns, outcome.reason,
                outcome.facts,
            )  # fmt: skip
            place = known[item.id]
            if outcome.slot is None:
                rows[place] = pickle.dumps(result_of(item, bare, None, None))
                continue
            pixels[place] = self._pool.pixels[outcome.slot]
            self._pool.release(outcome.slot)
            rows[place] = pickle.dumps((item, bare))
        for result in decoding.ready:
            rows[known[result.id]] = pickle.dumps(result)
        return {"known": rows, "pixels": pixels}


class Encoder:
    """An actor that holds the model. Called with rows of a decoder, it returns packed results."""

    def __init__(
        self,
        model: ModelInfo,
        limits: Limits,
        version: str,
        load: Callable[[], Any],
        size: int | None,
    ) -> None:
        check_version(version)
        self._model, self._encoder = model, load()
        self._batch = size or batch_of(self._encoder)
        self._is_first = True

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        rows = [pickle.loads(one) for one in batch["known"]]
        places = [place for place, row in enumerate(rows) if not isinstance(row, Result)]
        for start in range(0, len(places), self._batch):
            chunk = places[start : start + self._batch]
            pixels = batch["pixels"][chunk]  # uint8 (n, size, size, 3); a copy: models may write
            vectors, reasons = encoded(
                self._encoder, pixels, self._model.dim, is_first=self._is_first
            )
            self._is_first = False
            for place, vector, why in zip(chunk, vectors, reasons, strict=True):
                item, outcome = rows[place]
                rows[place] = result_of(item, outcome, vector, why)
        return {"result": [pickle.dumps(row) for row in rows]}


def load_here(model: ModelInfo, device: str, dtype: str) -> Any:
    """Load the driver's model on a node, where its folder may be another one.

    Raise ``FoveaError`` if the node has none of that name, or other weights under it.
    """
    from fovea.search.models.resolve import resolve_model

    name = model.source if os.path.isabs(model.source) else model.name
    here = resolve_model(name, network=False)
    if here.identity != model.identity:
        raise FoveaError(f"a node has other weights under the name {model.name}; copy the model")
    import torch

    torch.set_num_threads(available_cores())  # Ray tells it to use one
    return here.load(device=device, dtype=dtype)
