"""Reverse proxies: whose headers are believed, and the address under which clients see the server.

Everybody can write ``X-Forwarded-*``, and a proxy passes on what its client wrote. So the headers
count only on connections from named addresses, and of several values only the one that the
outermost of these added. Werkzeug's ``ProxyFix`` writes the values into the request, but believes
every peer and a fixed number of proxies; waitress trusts one address and knows no prefix.
"""

import ipaddress
import logging
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from fovea.search.errors import FoveaError

__all__ = ["BY_PROXY", "FORWARDED", "LOOPBACK_PROXIES", "Proxies", "clean_prefix", "network_of"]

log = logging.getLogger(__name__)

LOOPBACK_PROXIES = ("127.0.0.0/8", "::1/128")
BY_PROXY = "fovea.by_proxy"  # in a request's environment: whether a trusted proxy has sent it
FORWARDED = "fovea.forwarded"  # whether a header says that some proxy, trusted or not, has sent it
HEADERS = tuple(f"HTTP_X_FORWARDED_{name}" for name in ("FOR", "PROTO", "HOST", "PREFIX"))
FOR, PROTO, HOST, PREFIX = HEADERS
OTHERS = ("HTTP_X_FORWARDED_PORT", "HTTP_X_FORWARDED_BY", "HTTP_FORWARDED")  # never believed
SEGMENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+"  # needs no escaping anywhere
ENTRY = re.compile(r'"?(?:\[(?P<v6>[^]]+)\]|(?P<v4>[0-9.]+))(?::[0-9]+)?"?', re.ASCII)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """The proxies in front of the server, and the path under which they offer it.

    ``trusted`` are addresses and networks, such as ``10.0.0.5`` and ``10.1.0.0/16``. A ``prefix``
    such as ``/photos`` is used instead of what proxies say. They may remove it from the path or
    leave it there. Raise ``FoveaError`` for values that are none.
    """

    def __init__(self, trusted: Iterable[str] = (), prefix: str = "") -> None:
        self.networks = tuple(map(network_of, trusted))
        self.prefix = clean_prefix(prefix)
        self._fix = ProxyFix(lambda *_: (), x_host=1, x_prefix=1)
        self._own: set[str] = set()  # first parts of the app's paths
        self._has_told = False

    def install(self, app: Flask) -> None:
        """Let the app see every request as its client made it.

        Raise ``FoveaError`` for a prefix that begins like one of the app's own paths: nobody could
        tell whether a proxy has removed it.
        """
        self._own = {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()} - {""}
        if self.prefix and self.prefix.split("/")[1] in self._own:
            raise FoveaError(f"the prefix {self.prefix} is one of fovea's paths; choose another")
        inner = app.wsgi_app

        def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            return inner(self.unwrapped(environ), start_response)

        app.wsgi_app = wsgi_app  # type: ignore[method-assign]
        app.extensions["fovea.proxies"] = self

    def unwrapped(self, environ: dict[str, Any]) -> dict[str, Any]:
        """Change a request's environment, once, as if its client had sent it directly."""
        if BY_PROXY in environ:
            return environ
        environ[FORWARDED] = any(map(_is_of_proxy, environ))
        said = {name: environ.pop(name, "") for name in HEADERS}
        said = {name: value for name, value in said.items() if value.strip()}
        for name in OTHERS:
            environ.pop(name, None)
        peer = _address(environ.get("REMOTE_ADDR") or "")
        environ[BY_PROXY] = peer is not None and self._trusts(peer)
        if environ[BY_PROXY]:
            environ |= self._believed(str(peer), said)
            self._fix(environ, _unused)
        elif said and not self.networks:
            self._tell()
        self._enter(environ, self.prefix or environ.get("SCRIPT_NAME", ""))
        return environ

    def _believed(self, peer: str, said: dict[str, str]) -> dict[str, str]:
        """Return the one value of each header that a trusted proxy has added."""
        client, hops = self._client(peer, said.get(FOR, ""))
        found = {name: _from_right(value, hops) for name, value in said.items()} | {FOR: client}
        scheme, prefix = found.pop(PROTO, "").lower(), found.pop(PREFIX, "")
        if scheme in ("http", "https"):
            found[PROTO] = scheme
        with suppress(FoveaError):
            found[PREFIX] = clean_prefix(prefix)
        return found

    def _client(self, peer: str, forwarded: str) -> tuple[str, int]:
        """Return the address of the client, and how many trusted proxies it has come through.

        Each proxy adds the address of its own peer on the right. What stands to the left of the
        first address that is not trusted, its owner may have made up.
        """
        client, hops = peer, 1
        for number, entry in enumerate(reversed(_values(forwarded)), 1):
            address, hops = _address(entry), number
            if address is not None:
                client = str(address)
            if address is None or not self._trusts(address):
                break
        return client, hops

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self.networks)

    def _enter(self, environ: dict[str, Any], prefix: str) -> None:
        """Make the prefix the app's place, and let the path begin after it.

        A prefix such as ``/api`` is what the proxy says it has removed: the app's paths begin so.
        """
        path = environ.get("PATH_INFO", "")
        if f"{path}/".startswith(f"{prefix}/") and f"{prefix}/".split("/")[1] not in self._own:
            environ["PATH_INFO"] = path.removeprefix(prefix)
        environ["SCRIPT_NAME"] = prefix

    def _tell(self) -> None:
        if not self._has_told:
            self._has_told = True
            log.warning(
                "a request came through a proxy whose X-Forwarded headers are ignored; if that is "
                "yours, start fovea serve with --behind-proxy, which also asks visitors for a token"
            )


def network_of(text: str) -> Network:
    """Read an address or a network, such as ``10.1.0.0/16``. Raise ``FoveaError`` for others."""
    try:
        return ipaddress.ip_network(text.strip().strip("[]"), strict=False)
    except ValueError as exc:
        message = f"{text!r} is not an IP address or network, such as 10.0.0.5 or 10.1.0.0/16"
        raise FoveaError(message) from exc


def clean_prefix(text: str) -> str:
    """Return a path prefix without its last slash; "" and "/" are none.

    Raise ``FoveaError`` for one that is no plain path: it stands in links, headers and cookies.
    """
    if text in ("", "/"):
        return ""
    if not re.fullmatch(f"(?:/{SEGMENT})+/?", text):
        message = f"{text!r} is not a path prefix, such as /photos: letters, digits and -._~"
        raise FoveaError(message)
    return text.removesuffix("/")


def _is_of_proxy(name: str) -> bool:
    """Whether a name in a request's environment is that of a header that proxies add."""
    return name.startswith(("HTTP_X_FORWARDED", "HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP"))


def _unused(*_: Any) -> Any:
    """Stand where ``ProxyFix`` expects an app's ``start_response``."""


def _values(text: str) -> list[str]:
    return [value for value in map(str.strip, text.split(",")) if value]


def _from_right(text: str, hops: int) -> str:
    """Return the value that the outermost of so many proxies added; some replace, others append."""
    values = _values(text)
    return values[-min(hops, len(values))] if values else ""


def _address(text: str) -> Address | None:
    """Read an address with or without a port, None for others, such as "unknown"."""
    found = ENTRY.fullmatch(text)
    try:
        address = ipaddress.ip_address((found["v6"] or found["v4"]) if found else text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
