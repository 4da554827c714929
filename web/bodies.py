"""How large and how slow a request may be, decided while it arrives.

The server reads requests whole before a thread of the app sees them, so that a slow one holds
none up. Bodies stay in memory: pictures that somebody searches by are never written to a disk.
"""

import threading
import time
import weakref
from io import BytesIO
from typing import IO, Any

from flask import Flask, Request, request
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import WSGITask

from .problems import Problem

__all__ = ["LARGEST", "Channel", "InMemory", "show_refusals"]

LARGEST = 65 << 20  # bytes: 64 MiB of pictures, and what is around them
SMALL = (1 << 20) + 1  # of every other request
AT_ONCE = 8  # large bodies in memory
PATIENCE_S = 120.0  # from the first byte of a request to its last
TAKES_PICTURES = ("/api/search", "/knn-service")
REFUSED = "fovea.refused"  # in a request's environment: the problem to answer it by


class InMemory(Request):
    """A request whose uploads stay in memory, as large as they may be."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return BytesIO()


def show_refusals(app: Flask) -> None:
    """Let the app answer what the server has refused, as it answers its own errors."""

    @app.before_request
    def refuse() -> None:
        if (problem := request.environ.get(REFUSED)) is not None:
            raise problem


class Parser(HTTPRequestParser):
    """A request that is arriving."""

    command, path, query, request_uri, url_scheme = "GET", "/", "", "/", "http"  # if unreadable
    completed: bool
    error: Any  # what to answer it by: a Problem, or an error of waitress's
    _large: "weakref.WeakSet[Parser]" = weakref.WeakSet()
    _counting = threading.Lock()

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self._began = time.monotonic()

    def received(self, data: bytes) -> int:
        """Take what has arrived, and refuse what goes on for too long."""
        consumed: int = super().received(data)
        if self.headers_finished and self.error is None:
            self.error = self._refusal()
            self.completed = self.completed or self.error is not None
        return consumed

    def _refusal(self) -> Problem | None:
        size = max(self.content_length, self.body_bytes_received)
        if size >= SMALL:
            if self.path not in TAKES_PICTURES:
                detail = f"a request has at most {SMALL - 1:,} bytes here"
                return Problem(413, "Content Too Large", detail)
            if not self._has_room():
                detail = "too many pictures are arriving at once; try again in a moment"
                headers = {"Retry-After": "5"}
                return Problem(503, "Service Unavailable", detail, headers=headers)
        if not self.completed and time.monotonic() - self._began > PATIENCE_S:
            detail = f"this has been arriving for more than {PATIENCE_S:.0f} s"
            return Problem(408, "Request Timeout", detail)
        return None

    def _has_room(self) -> bool:
        """Count this request among the large ones, for as long as it is in memory."""
        with self._counting:
            if self in self._large:
                return True
            if len(self._large) >= AT_ONCE:
                return False
            self._large.add(self)
            return True


class Task(WSGITask):
    """A request that the app answers, also where the server has refused it."""

    def execute(self) -> None:
        if self.request.error:
            self.set_close_on_finish()  # the rest of it is not read
        super().execute()

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        if error := self.request.error:
            if not isinstance(error, Problem):
                error = Problem(error.code, error.reason, str(error.body))
            environ[REFUSED] = error
        return environ


class Channel(HTTPChannel):
    """A connection."""

    parser_class = Parser
    task_class = error_task_class = Task
