"""Servers on the loopback address: a small one that misbehaves on request, and fovea's own."""

import hashlib
import json
import socket
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Served:
    """What a server gives out, how it misbehaves, and what it was asked."""

    def __init__(self):
        self.files = {}  # path -> bytes
        self.meant = {}  # path -> bytes whose checksum a hub tells, where it sends others
        self.asked = []  # (path, Range header or None)
        self.heads = 0  # requests for a file's head alone
        self.cut_after = None  # bytes sent before the connection drops, as often as ``cuts``
        self.cuts = 0
        self.stall_after = None  # bytes sent before falling silent, as often as ``stalls``
        self.stalls = 0
        self.heeds_range = True
        self.trickles = None  # "head" or "body": of that, a byte now and then, without end
        self.wait = 0.0  # seconds before the answer
        self.status = None  # an error to answer with
        self.released = threading.Event()
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def do_GET(self):
        served = self.served
        wanted = self.headers.get("Range")
        served.asked.append((self.path, wanted))
        if served.wait:
            served.released.wait(served.wait)
        if served.trickles == "head":
            self._trickle()
        data = served.files.get(self.path.split("?")[0])
        if served.status or data is None:
            self._head(served.status or 404, b"")
            return
        self._send(data)

    def _send(self, data, headers=None):
        """Send a file, or the part of it that is asked for."""
        wanted, headers = self.headers.get("Range"), headers or {}
        start = 0
        if wanted and self.served.heeds_range:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self._head(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            span = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            self._head(206, data[start:], headers | span)
        else:
            self._head(200, data, headers)
        self._body(data[start:])

    def do_CONNECT(self):
        """What a client asks a proxy for, on its way to a server with TLS."""
        self.served.asked.append((self.path, None))
        self._head(502, b"")

    def do_HEAD(self):
        self.served.heads += 1
        data = self.served.files.get(self.path.split("?")[0])
        self._head(200 if data is not None else 404, data or b"")

    def _head(self, status, body, headers=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, data):
        served = self.served
        if served.cuts and served.cut_after is not None:
            served.cuts -= 1
            self.wfile.write(data[: served.cut_after])
            self.close_connection = True
        elif served.stalls and served.stall_after is not None:
            served.stalls -= 1
            self.wfile.write(data[: served.stall_after])
            self.wfile.flush()
            served.released.wait(30)
            self.close_connection = True
        elif served.trickles == "body":
            self._trickle()
        else:
            self.wfile.write(data)

    def _trickle(self):
        self.close_connection = True
        while not self.served.released.wait(0.05):
            self.wfile.write(b"x")
            self.wfile.flush()

    def log_message(self, *args):
        pass

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass  # the client left: some tests make it


class _HubHandler(_Handler):
    """As much of the hub's interface as downloading one repository takes."""

    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/"):
            self.served.asked.append((path, None))
            repo = "/".join(path.removeprefix("/api/models/").split("/")[:2])
            names = [
                n.removeprefix(f"/{repo}/") for n in self.served.files if n.startswith(f"/{repo}/")
            ]
            if not names:
                self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                return
            siblings = [{"rfilename": name} for name in names]
            self._json(200, {"id": repo, "modelId": repo, "sha": self.commit, "siblings": siblings})
            return
        self._file(path)

    def do_HEAD(self):
        self._file(self.path.split("?")[0])

    def _file(self, path):
        self.served.asked.append((path, self.headers.get("Range")))
        repo, _, rest = path.partition("/resolve/")
        data = self.served.files.get(f"{repo}/{rest.partition('/')[2]}")
        if data is None:
            self._head(404 if rest else 200, b"", {"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha256(self.served.meant.get(path, data)).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit}
        if self.command == "HEAD":
            self._head(200, data, headers)
        elif path.endswith(".safetensors"):  # what misbehaves is what is large
            self._send(data, headers)
        else:
            self._head(200, data, headers)
            self.wfile.write(data)

    def _json(self, status, value, headers=None):
        body = json.dumps(value).encode()
        self._head(status, body, {"Content-Type": "application/json", **(headers or {})})
        self.wfile.write(body)


def lead_here(patch, served):
    """Lead all that would leave this machine to a server, which then counts it."""
    for name in ("FOVEA_OFFLINE", "HF_HUB_OFFLINE"):
        patch.delenv(name, raising=False)
    for name in ("no_proxy", "NO_PROXY"):
        patch.setenv(name, "127.0.0.1")  # which needs no way around
    patch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    for name in ("HF_ENDPOINT", "FOVEA_MODELS_URL"):
        patch.setenv(name, served.url)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        patch.setenv(name, served.url)
        patch.setenv(name.upper(), served.url)


@contextmanager
def serving(handler=_Handler):
    """Serve on a free port of 127.0.0.1 until the block ends."""
    served = Served()
    kind = type("Handler", (handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        served.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def serving_hub():
    """Serve repositories as the hub does: ``files`` is by ``/owner/name/file``."""
    return serving(_HubHandler)


@contextmanager
def answering(app):
    """Let fovea's server answer for an app; its address is ``place``, its threads ``threads``."""
    from waitress import wasyncore
    from waitress.adjustments import Adjustments
    from waitress.task import ThreadedTaskDispatcher

    from fovea.web.serving.connections import Server

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    parts, threads, ending = {}, ThreadedTaskDispatcher(), threading.Event()
    threads.set_thread_count(4)
    settings = Adjustments(sockets=[listening], channel_request_lookahead=1, ident=None)
    server = Server(app, listening, map=parts, dispatcher=threads, adj=settings)
    server.place, server.threads = listening.getsockname(), threads

    def loop():
        while not ending.is_set():
            wasyncore.loop(0.05, use_poll=True, map=parts, count=1)
        for channel in list(server.active_channels.values()):
            channel.handle_close()  # which also closes what was yet to be sent
        wasyncore.close_all(parts)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield server
    finally:
        threads.shutdown()
        ending.set()
        thread.join(60)


def elapsed(act):
    """Return how long ``act`` took, in seconds."""
    started = time.monotonic()
    act()
    return time.monotonic() - started
