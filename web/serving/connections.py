"""Connections: the errors that the server itself answers, and when it closes a connection.

The main thread reads and writes for all connections; worker threads make answers. Waitress's own
limits do not suffice: at ``connection_limit`` it accepts nobody until somebody leaves; headers may
take for ever to arrive; and ``channel_timeout`` spares a client that stops reading an answer, which
occupies a worker thread for as long.
"""

import socket
import threading
import time
from collections import Counter
from typing import Any

from flask import Flask, Request
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import WSGITask

from fovea.web.contract.problems import Problem

from .request_limits import REFUSED, Parser

__all__ = ["Server"]

IDLE_S = 60  # without a byte in either direction
HEADERS_S = 15  # for a request's headers to arrive
LINGER_S = 5  # for a refused client to read why
SENT_AHEAD = 1 << 20  # bytes that may wait to be sent while the next answer is made


class Task(WSGITask):
    """A request that the app answers, even if the server has refused it."""

    def execute(self) -> None:
        if self.request.error:
            self.set_close_on_finish()  # the rest of the request is not read
            self.channel.is_refused = True
        super().execute()
        channel = self.channel
        if len(channel.requests) > 1 and channel.total_outbufs_len > SENT_AHEAD:
            self.close_on_finish = True  # the next answer would occupy a thread until this is sent

    def write(self, data: bytes) -> None:
        """Send the headers and the beginning of the body at once, not as two packets."""
        self.channel.is_held = bool(data) and not self.wrote_header and self.has_body
        try:
            super().write(data)
        finally:
            self.channel.is_held = False
            if self.channel.held:  # the body turned out to be empty
                self.channel.write_soon(b"")

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        if error := self.request.error:
            if not isinstance(error, Problem):
                error = Problem(error.code, error.reason, str(error.body))
            environ[REFUSED] = error
        return environ


class Channel(HTTPChannel):
    """A connection."""

    task_class = error_task_class = Task
    request: Any  # the one being received
    is_refused = False  # its last answer is on its way, before a request has been read whole
    ended: float | None = None  # seconds since 1970: when that answer was sent
    is_held = False  # the headers of an answer wait for its body
    held = b""  # these headers

    @property
    def moved(self) -> float:
        """The time of the last progress that counts, in seconds since 1970."""
        return float(self.request.moved if self.request else self.last_activity)

    def write_soon(self, data: Any) -> int:
        if self.is_held and isinstance(data, bytes):
            self.held, self.is_held = data, False
            return len(data)
        if self.held:
            data, self.held = self.held + data, b""
        sent: int = super().write_soon(data)
        return sent

    def service(self) -> None:
        self.server.serving.channel = self
        try:
            super().service()
        finally:
            self.server.serving.channel = None

    @property
    def needs_nothing(self) -> bool:
        """Whether the main thread has only to read the next request, for which it waits anyway."""
        is_closing = self.close_when_flushed or self.will_close or not self.connected
        return not (is_closing or self.total_outbufs_len or self.requests)

    def readable(self) -> bool:
        return self._fileno is not None and (self.ended is not None or super().readable())

    def writable(self) -> bool:
        return self._fileno is not None and super().writable()

    def handle_write(self) -> None:
        if self.is_refused and self.close_when_flushed:
            self._flush_exception(self._flush_some)
            if not self.total_outbufs_len and not self.will_close:
                self._end()
                return
        super().handle_write()

    def _end(self) -> None:
        """Send no more, but read on: closing now would make the system discard the answer.

        It resets connections with unread bytes (RFC 9112, section 9.6). A proxy that is still
        sending would then report a broken server instead of our reason.
        """
        self.close_when_flushed, self.ended = False, time.time()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.handle_close()

    def handle_read(self) -> None:
        if self.ended is None:
            super().handle_read()
            return
        try:
            self.recv(self.adj.recv_bytes)  # closes at the end
        except OSError:
            self.handle_close()

    def end_if_stuck(self, now: float) -> None:
        """Close the connection if it makes no progress; the app may take its time."""
        with self.outbuf_lock:  # a thread may be about to send
            is_sending = bool(self.total_outbufs_len)
            is_idle = now - self.last_activity > IDLE_S
        if self.ended is not None:
            if now - self.ended > LINGER_S:
                self.handle_close()
        elif is_sending or self.requests:
            if is_sending and is_idle:
                self.handle_close()
        elif self.request and not self.request.headers_finished:
            if now - self.request.began > HEADERS_S:
                detail = f"the headers did not arrive within {HEADERS_S} s"
                self.refuse(Problem(408, "Request Timeout", detail))
        elif is_idle or now - HEADERS_S > self.creation_time == self.last_activity:
            self.handle_close()

    def parser_class(self, adj: Any) -> Parser:
        return Parser(adj, self)

    def environment(self, request: Parser) -> dict[str, Any]:
        """Return the environment with which the app will see a request."""
        found: dict[str, Any] = self.server.unwrapped(Task(self, request).get_environment())
        return found

    def refusal(self, request: Parser) -> Problem | None:
        """Return the app's reason to refuse a request whose headers have arrived, if any."""
        try:
            self.server.guard(Request(self.environment(request)))
        except Problem as problem:
            return problem
        return None

    def refuse(self, problem: Problem) -> None:
        """Answer the request being received with a problem, and read no more of it."""
        with self.requests_lock:
            request, self.request = self.request, None
            request.error, request.completed = problem, True
            self.requests.append(request)
            if len(self.requests) == 1:  # otherwise the task before it continues with it
                self.server.add_task(self)


class Server(TcpWSGIServer):
    """Accepts connections on one socket, and limits their number."""

    channel_class = Channel

    def __init__(self, app: Flask, listening: socket.socket, **shared: Any) -> None:
        self.guard = app.extensions["fovea.guard"]
        self.unwrapped = app.extensions["fovea.proxies"].unwrapped
        self.serving = threading.local()  # ``channel``: the one whose request this thread answers
        place = (listening.family, listening.type, listening.proto, listening.getsockname())
        super().__init__(app, _sock=listening, sockinfo=place, bind_socket=False, **shared)

    def pull_trigger(self) -> None:
        """Wake the main thread, unless the channel that this thread serves needs nothing of it.

        Waitress wakes it after each answer, which costs about as much as reading a request.
        """
        channel = getattr(self.serving, "channel", None)
        if channel is None or not channel.needs_nothing:
            super().pull_trigger()

    def maintenance(self, now: float) -> None:
        for channel in list(self.active_channels.values()):
            channel.end_if_stuck(now)

    def readable(self) -> bool:
        if len(self._map) >= self.adj.connection_limit:
            self._make_room()
        return bool(super().readable())

    def _make_room(self) -> None:
        """Close the longest idle connection of the peer with the most connections."""
        channels = [part for part in self._map.values() if isinstance(part, Channel)]
        peers = Counter(channel.addr[0] for channel in channels)
        waiting = [channel for channel in channels if not channel.requests]
        if waiting:
            min(waiting, key=lambda one: (-peers[one.addr[0]], one.moved)).handle_close()
