"""A few worker processes that analyse pictures, each one at a time; the broken are replaced."""

import contextlib
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import wait

from fovea.indexer.decoding.limits import Limits, unexpected
from fovea.indexer.workers.host import Process
from fovea.indexer.workers.pool import WorkersError
from fovea.search.analyses.stored import Done, Pending

__all__ = ["Crew"]

WORKER = "fovea.indexer.analysing.worker"
TICK_S = 0.2  # the longest wait for news
GRACE_S = 5.0  # the worker's own alarm comes first
START_S = 120.0  # for a worker to load what it needs, on a busy machine
START_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class _Task:
    picture: Pending
    copy: int = 0  # which of its files
    retried: bool = False


class _Worker(Process):
    task: _Task | None = None
    since: float = 0.0


class Crew:
    """Analyse pictures in up to ``workers`` processes. Use it as a context manager.

    ``module`` has the analysis. Raise ``WorkersError`` where no process can be started.
    """

    def __init__(self, module: str, limits: Limits, workers: int) -> None:
        self._module, self._limits, self._most = module, limits, workers
        self._workers: list[_Worker] = []
        self._again: deque[_Task] = deque()
        self._early_deaths = 0

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.kill()
            worker.end()

    @property
    def process_ids(self) -> list[int]:
        """The workers' process ids."""
        return [worker.pid for worker in self._workers]

    def outcomes(self, pictures: Iterator[Pending]) -> Iterator[Done | None]:
        """Yield what became of each picture, in any order; None now and then, without news.

        Nothing is yielded of a picture none of whose files can be read, or still has that content.
        """
        exhausted = False
        while True:
            exhausted = self._hand_out(pictures, exhausted)
            if exhausted and not self._again and not any(one.task for one in self._workers):
                return
            yield from self._collect() or (None,)

    def _hand_out(self, pictures: Iterator[Pending], exhausted: bool) -> bool:
        """Give each idle worker a picture; return whether there are no more."""
        while len(self._workers) < self._most or not all(one.task for one in self._workers):
            if self._again:
                task = self._again.popleft()
            else:
                picture = None if exhausted else next(pictures, None)
                if picture is None:
                    return True
                task = _Task(picture)
            worker = self._idle()
            worker.task, worker.since = task, time.monotonic()
            with contextlib.suppress(OSError):  # it has died, which ``_collect`` notices
                worker.send({"hash": task.picture.hash.hex()}, task.picture.paths[task.copy])
        return exhausted

    def _idle(self) -> _Worker:
        """Return a worker with nothing to do, a new one where all are busy."""
        for worker in self._workers:
            if worker.task is None:
                return worker
        try:
            worker = _Worker(WORKER, self._limits, {"module": self._module})
        except OSError as exc:
            raise WorkersError(f"cannot start a worker process: {exc.strerror}") from exc
        self._workers.append(worker)
        return worker

    def _collect(self) -> list[Done]:
        """Wait a moment for answers, and replace the workers that are late, dead or tired."""
        by_connection = {worker.connection: worker for worker in self._workers}
        found: list[Done] = []
        for connection in wait(list(by_connection), TICK_S):
            worker = by_connection[connection]  # type: ignore[index]  # we gave it Connections
            try:
                self._hear(worker, found)
            except Exception:  # it has ended, or says what makes no sense
                found += self._clean_up(worker)
            else:
                if worker.is_tired:
                    found += self._clean_up(worker)
        now = time.monotonic()
        for worker in list(self._workers):
            patience = self._limits.seconds + GRACE_S if worker.is_ready else START_S
            if worker.task and now - worker.since > patience:
                worker.kill()
                found += self._clean_up(worker, is_late=True)
        return found

    def _hear(self, worker: _Worker, found: list[Done]) -> None:
        message = worker.receive()
        if message is None:
            self._early_deaths, worker.since = 0, time.monotonic()
            return
        task, answer = worker.task, message[0]
        assert task is not None
        worker.task = None
        if answer["outcome"] == "done":
            found.append(Done(task.picture.image_id, answer["result"]))
        elif answer["outcome"] == "failed":
            found.append(Done(task.picture.image_id, reason=str(answer["reason"])))
        elif task.copy + 1 < len(task.picture.paths):
            self._again.append(replace(task, copy=task.copy + 1))

    def _clean_up(self, worker: _Worker, is_late: bool = False) -> list[Done]:
        """Clean up a worker; fail the picture that it died of, if it did."""
        code = worker.end()
        self._workers.remove(worker)
        task = worker.task
        if not worker.is_ready:
            self._early_deaths += 1
            if self._early_deaths == START_ATTEMPTS:
                raise WorkersError(f"cannot start a worker process: {worker.complaint}")
        if task is None:
            return []
        killed = code in (-signal.SIGKILL, -signal.SIGTERM) and not is_late
        if not worker.is_ready or (killed and not task.retried):
            self._again.append(replace(task, retried=worker.is_ready))
            return []  # perhaps not the picture's doing
        return [Done(task.picture.image_id, reason=self._cause(None if is_late else code))]

    def _cause(self, code: int | None) -> str:
        if code is None or code == -signal.SIGALRM:
            return f"too slow: not analysed within {self._limits.seconds:g} seconds"
        if code == -signal.SIGKILL:
            return "too large: the system ended its process, which happens when memory runs out"
        if code < 0:
            return f"broken: its analysis crashed ({signal.Signals(-code).name})"
        return unexpected(RuntimeError(f"its analysis stopped with exit code {code}"))
