"""Limits on the size and duration of requests, checked while they arrive.

Waitress reads a request whole before a thread of the app sees it, so a slow one delays nobody. It
has one size limit for all routes and none for time. Here only routes that take pictures or marks
accept large bodies, only from clients with access, and only a few at once. Bodies stay in memory:
pictures sent as queries are never written to disk.
"""

import time
import weakref
from io import BytesIO
from typing import IO, Any

from flask import Flask, Request, request
from waitress.parser import HTTPRequestParser

from fovea.web.contract.problems import Problem

__all__ = ["LARGEST", "REFUSED", "InMemory", "Parser", "show_refusals"]

LARGEST = 65 << 20  # bytes: 64 MiB of pictures and their encoding
SMALL = (1 << 20) + 1  # bytes: every other request is smaller
AT_ONCE = 8  # large bodies in memory
BLOCK = 64 << 10  # bytes that count as progress of a body
PATIENCE_S = 120.0  # from the first byte of a request to its last
LARGE = {  # bytes of bodies, by method and path
    ("POST", "/api/search"): LARGEST,
    ("POST", "/api/pictures"): LARGEST,
    ("POST", "/knn-service"): LARGEST,
    ("PUT", "/api/marks"): (16 << 20) + 1,
}
OTHERWISE = {"/api/marks": "; fovea mark import reads larger documents"}
REFUSED = "fovea.refused"  # in a request's environment: the problem to answer it with


class InMemory(Request):
    """A request whose uploads stay in memory, whatever their size."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return BytesIO()


def show_refusals(app: Flask) -> None:
    """Let the app answer requests that the server has refused, like its own errors."""

    @app.before_request
    def refuse() -> None:
        if (problem := request.environ.get(REFUSED)) is not None:
            raise problem


class Parser(HTTPRequestParser):
    """A request that is being received on a channel."""

    command, path, query, request_uri, url_scheme = "GET", "/", "", "/", "http"  # if unreadable
    completed: bool
    error: Any  # to answer it with: a Problem, or an error of waitress
    _large: "weakref.WeakSet[Parser]" = weakref.WeakSet()  # used by the server's thread only

    def __init__(self, adj: Any, channel: Any) -> None:
        super().__init__(adj)
        self._channel = weakref.ref(channel)
        self.began = self.moved = time.time()  # seconds since 1970: the start, and the last block
        self._counted = 0  # bytes of the body until then
        self._may_be_large = False

    def received(self, data: bytes) -> int:
        """Take data that has arrived; refuse a request that is too large or takes too long."""
        consumed: int = super().received(data)
        if self.body_bytes_received - self._counted >= BLOCK:
            self.moved, self._counted = time.time(), self.body_bytes_received
        if self.headers_finished and self.error is None:
            self.error = self._refusal()
            if self.error is not None:
                self.completed, self.expect_continue = True, False
        return consumed

    def _refusal(self) -> Problem | None:
        size = max(self.content_length, self.body_bytes_received)
        if size >= SMALL and not self._may_be_large:
            channel = self._channel()
            path = self.path if channel is None else channel.environment(self)["PATH_INFO"]
            if size >= LARGE.get((self.command, path), SMALL):
                return _too_large(self.command, path)
            if channel is not None and (problem := channel.refusal(self)):
                return problem
            self._may_be_large = True
        if self.body_bytes_received >= SMALL and not self._has_room():
            return _crowded()
        if not self.completed and time.time() - self.began > PATIENCE_S:
            detail = f"the request did not arrive within {PATIENCE_S:.0f} s"
            return Problem(408, "Request Timeout", detail)
        return None

    def _has_room(self) -> bool:
        """Count this request among the large ones while it is in memory; False if it has no place.

        If there are too many, the one that has stalled for longest is dropped.
        """
        if self in self._large:
            return True
        if len(self._large) >= AT_ONCE:
            arriving = (one for one in self._large if not one.completed)
            slowest = min(arriving, key=lambda one: one.moved, default=None)
            if slowest is None:
                return False
            self._large.discard(slowest)
            slowest._give_way()
        self._large.add(self)
        return True

    def _give_way(self) -> None:
        channel = self._channel()
        if channel is not None and channel.request is self:
            channel.refuse(_crowded())


def _too_large(command: str, path: str) -> Problem:
    most = LARGE.get((command, path), SMALL) - 1
    detail = f"the body may have at most {most:,} bytes here{OTHERWISE.get(path, '')}"
    return Problem(413, "Content Too Large", detail)


def _crowded() -> Problem:
    detail = "too many pictures are arriving at once; try again in a moment"
    return Problem(503, "Service Unavailable", detail, headers={"Retry-After": "5"})
