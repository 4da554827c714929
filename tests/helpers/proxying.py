"""Real proxies for tests: nginx and Caddy, as docs/serving.md configures them, with TLS."""

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from places import CHECKOUT

PAGE = CHECKOUT / "docs" / "serving.md"
NAME = "photos.example.org"
PREFIX = "/photos"
PATIENCE = 60.0  # seconds to wait for a proxy
NGINX = """{user}daemon off;
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{}}
http {{
    access_log off;
    {temporary}
{server}
}}
"""
CADDY = """{{
    admin off
    auto_https disable_redirects
}}
{server}
"""


def program(name: str) -> str:
    """Return the path of a proxy; without it skip the test, or fail it in CI."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        reason = f"no {name} on this machine (apt-get install {name})"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def example(language: str) -> str:
    """Return the one example in docs/serving.md of a proxy's configuration."""
    text = PAGE.read_text("utf-8")
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate signed by itself, for the example's name and 127.0.0.1, and its key."""
    public, secret = folder / "certificate.pem", folder / "key.pem"
    command = [program("openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
    command += ["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={NAME}"]
    command += ["-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    command += ["-keyout", str(secret), "-out", str(public)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return public, secret


def configured(kind: str, place: Path, port: int, inner: int) -> list[str]:
    """Write a proxy's configuration, the example's on other ports; return the command."""
    public, secret = certificate(place)
    text = example(kind)
    changes = {"127.0.0.1:8000": f"127.0.0.1:{inner}"}
    if kind == "nginx":
        changes |= {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            f"/etc/ssl/{NAME}.crt": str(public),
            f"/etc/ssl/{NAME}.key": str(secret),
        }
    else:
        own = f"{NAME}:{port}, https://127.0.0.1:{port} {{\n    bind 127.0.0.1\n"
        changes[f"{NAME} {{\n"] = f"{own}    tls {public} {secret}\n"
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    file = place / f"{kind}.conf"
    if kind == "nginx":
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "\n    ".join(f"{one}_temp_path {place}/{one};" for one in kinds)
        user = "" if os.geteuid() else "user root;\n"  # another one cannot enter the folder
        file.write_text(NGINX.format(user=user, place=place, temporary=temporary, server=text))
        return [program("nginx"), "-e", f"{place}/error.log", "-p", str(place), "-c", str(file)]
    file.write_text(CADDY.format(server=text))
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]


@contextmanager
def proxied(kind: str, place: Path, port: int, inner: int) -> Iterator[None]:
    """Run a proxy with TLS on one port, in front of the server on the other."""
    command = configured(kind, place, port, inner)
    home = {"HOME": str(place), "XDG_DATA_HOME": str(place), "XDG_CONFIG_HOME": str(place)}
    with (place / "proxy.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ | home
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 5).close()
                    break
                except OSError:
                    said = (place / "proxy.log").read_text(errors="replace")
                    assert process.poll() is None and time.monotonic() < deadline, said
                    time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


@dataclass(frozen=True, slots=True)
class Outside:
    """How clients reach a server through its proxy."""

    address: str  # with the example's name, and without a last slash
    port: int
    token: str
    inner: int  # the port of the server itself
    tls: ssl.SSLContext

    @contextmanager
    def answered(self, method, path, body=None, headers=None, *, is_known=True):
        """Send a request, with the token if the client is known; yield the response."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=self.tls, timeout=PATIENCE
        )
        headers = {"Host": f"{NAME}:{self.port}"} | (headers or {})
        if is_known:
            headers = {"Cookie": f"fovea_token={self.token}"} | headers
        with closing(connection):
            connection.request(method, PREFIX + path, body, headers)
            with connection.getresponse() as response:
                yield response

    def ask(self, method, path, body=None, headers=None, *, is_known=True):
        """Send a request; return status, headers and body."""
        with self.answered(method, path, body, headers, is_known=is_known) as response:
            return response.status, response.headers, response.read()

    def json(self, method, path, document=None):
        """Send and read JSON; return the status and the document."""
        body = None if document is None else json.dumps(document)
        headers = {"Content-Type": "application/json", "Origin": self.address.removesuffix(PREFIX)}
        status, _, data = self.ask(method, path, body, headers)
        return status, json.loads(data)


@contextmanager
def outside(kind: str, library: Path, place: Path, *options: str) -> Iterator[Outside]:
    """Run ``fovea serve`` as the documentation says, behind a proxy of this kind."""
    program(kind)
    inner, port = free_port(), free_port()
    [said] = re.findall(
        r"^\$ (fovea serve .*--prefix.*) ~/Pictures$", PAGE.read_text("utf-8"), re.M
    )
    command = [sys.executable, "-u", "-m", *said.split(), "--port", str(inner), *options]
    with (place / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--library", str(library)],
            cwd=CHECKOUT,
            env=os.environ | {"FOVEA_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        try:
            line = process.stdout.readline()
            tokens = re.findall(r"https://\S+/photos/\?token=([\w-]+)", line)
            assert tokens, (line, (place / "server.log").read_text(errors="replace"))
            with proxied(kind, place, port, inner):
                address = f"https://{NAME}:{port}{PREFIX}"
                yield Outside(address, port, tokens[0], inner, trusting(place))
        finally:
            process.terminate()
            process.communicate(timeout=30)


def trusting(place: Path) -> ssl.SSLContext:
    """Return a client's settings that trust the certificate made there."""
    return ssl.create_default_context(cafile=str(place / "certificate.pem"))
