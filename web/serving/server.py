"""Serve the app by waitress, with enough threads that slow clients do not delay others."""

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

THREADS = 32  # most of them wait, for events or for slow clients
CONNECTIONS = 512
TURN_S = 0.0005  # before a thread yields to others; Python's default of 5 ms adds up
LOOK_S = 5  # between two checks for stuck connections


def serve(
    app: Flask, host: str, port: int, *, on_ready: Callable[[int], None] | None = None
) -> None:
    """Answer requests until Ctrl-C or SIGTERM; call ``on_ready`` with the port once it is bound.

    Raise ``FoveaError`` if the address or the port cannot be used.
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
        channel_request_lookahead=1,  # to notice clients that disconnect
        clear_untrusted_proxy_headers=False,  # the app does it
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
    """Bind every address of a host to the same port; 0 means a free one.

    Waitress would bind each address to a free port of its own.
    """
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
            one.close()  # for example IPv6, on a machine without it
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
    """Let Ctrl-C and SIGTERM set ``closing`` first, so that no thread delays the end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
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
            f"port {port} of {host} is used by another program; choose another one: "
            f"fovea serve --port {port + 1}"
        )
    if exc.errno == errno.EACCES:
        return f"no permission to use port {port}; choose one above 1023: fovea serve --port 8000"
    if isinstance(exc, socket.gaierror) or exc.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; correct or omit --host"
    return f"cannot serve at {host}:{port}: {exc.strerror or exc}"
