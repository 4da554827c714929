"""Serve the app: waitress, with threads enough that slow clients do not stop the others."""

import errno
import signal
from collections.abc import Callable
from types import FrameType

from flask import Flask
from waitress.server import create_server

from search.errors import FoveaError

__all__ = ["serve"]

THREADS = 32  # most of them wait: for events, for slow readers
CONNECTIONS = 512
BODY_BYTES = 80 << 20  # the most that any route takes, and a little for what surrounds it
IDLE_S = 60  # a connection that says nothing for this long is closed


def serve(
    app: Flask,
    host: str,
    port: int,
    *,
    on_ready: Callable[[int], None] | None = None,
) -> None:
    """Answer requests until a signal ends it; ``on_ready`` is called with the port, once bound.

    Raise ``FoveaError`` where the address or the port cannot be had.
    """
    try:
        server = create_server(
            app,
            host=host,
            port=port,
            threads=THREADS,
            connection_limit=CONNECTIONS,
            max_request_body_size=BODY_BYTES,
            channel_timeout=IDLE_S,
            asyncore_use_poll=True,
            clear_untrusted_proxy_headers=True,
            ident=None,
        )
    except OSError as exc:
        raise FoveaError(_explain(host, port, exc)) from exc
    with_signals = signal.signal(signal.SIGTERM, _end)
    try:
        if on_ready is not None:
            on_ready(server.effective_port)
        server.run()
    finally:
        signal.signal(signal.SIGTERM, with_signals)
        server.close()


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _explain(host: str, port: int, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken by another program; choose another: "
            f"fovea serve --port {port + 1}"
        )
    if exc.errno == errno.EACCES:
        return f"port {port} needs more rights; choose one above 1023: fovea serve --port 8000"
    return f"cannot serve at {host}:{port}: {exc.strerror or exc}"
