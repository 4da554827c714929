"""Serve the app: waitress, with threads enough that slow clients do not stop the others."""

import errno
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.task import ThreadedTaskDispatcher

from fovea.search.errors import FoveaError

from .connections import Server
from .request_limits import LARGEST

__all__ = ["serve"]

THREADS = 32  # most of them wait: for events, for slow readers
CONNECTIONS = 512
TURN_S = 0.0005  # that a thread computes in Python while others wait; Python's own 5 ms add up
LOOK_S = 5  # between two looks for connections that are stuck


def serve(
    app: Flask, host: str, port: int, *, on_ready: Callable[[int], None] | None = None
) -> None:
    """Answer requests until Ctrl-C or SIGTERM; ``on_ready`` is called with the port, once bound.

    Raise ``FoveaError`` where the address or the port cannot be had.
    """
    sys.setswitchinterval(TURN_S)
    sockets = _listening(host, port)
    parts: dict[int, Any] = {}
    settings = Adjustments(
        sockets=sockets,
        connection_limit=CONNECTIONS,
        max_request_body_size=LARGEST,
        inbuf_overflow=LARGEST,
        cleanup_interval=LOOK_S,
        channel_request_lookahead=1,  # so that a client that has gone is noticed
        clear_untrusted_proxy_headers=True,
        ident=None,
    )
    threads = ThreadedTaskDispatcher()
    threads.set_thread_count(THREADS)
    for one in sockets:
        Server(app, one, map=parts, dispatcher=threads, adj=settings)
    try:
        with _ended_by_signals(app.extensions["fovea"].closing):
            if on_ready is not None:
                on_ready(sockets[0].getsockname()[1])
            with suppress(KeyboardInterrupt):
                wasyncore.loop(1, use_poll=True, map=parts)
    finally:
        threads.shutdown()
        wasyncore.close_all(parts)


def _listening(host: str, port: int) -> list[socket.socket]:
    """Bind every address of a host, all to one port; ``port`` 0 takes a free one."""
    with ExitStack() as failing:
        sockets: list[socket.socket] = []
        try:
            found = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, kind, protocol, _, address in dict.fromkeys(found):
                one = failing.enter_context(socket.socket(family, kind, protocol))
                _bind(one, (address[0], port, *address[2:]))
                port = one.getsockname()[1]
                sockets.append(one)
        except OSError as exc:
            if not sockets or exc.errno == errno.EADDRINUSE:
                raise FoveaError(_explain(host, port, exc)) from exc
            one.close()  # the host has an address of a kind that this machine lacks
        failing.pop_all()
    return sockets


def _bind(one: socket.socket, address: tuple[Any, ...]) -> None:
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if hasattr(signal, "SIGHUP"):  # on Windows the option would share the port with others
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(address)
    one.listen(CONNECTIONS)
    one.setblocking(False)


@contextmanager
def _ended_by_signals(closing: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM first tell all threads to end, so that none is waited for long."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return

    def end(number: int, frame: FrameType | None) -> None:
        closing.set()
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _explain(host: str, port: int, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken by another program; choose another: "
            f"fovea serve --port {port + 1}"
        )
    if exc.errno == errno.EACCES:
        return f"port {port} needs more rights; choose one above 1023: fovea serve --port 8000"
    if isinstance(exc, socket.gaierror) or exc.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; leave --host out, or name one that is"
    return f"cannot serve at {host}:{port}: {exc.strerror or exc}"
