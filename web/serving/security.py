"""Access control: this machine, or clients with the token; and what our own pages may load.

Whoever comes through a proxy has the proxy's address, often that of this machine. So no request
gains anything by where it comes from: the token decides.

A browser also runs scripts of other sites. They cannot read answers (no CORS), must not change
anything (Origin, Fetch Metadata), and must not reach the server under a name of their own (Host:
DNS rebinding). Clients other than browsers send no Origin or Fetch Metadata and are let through.
"""

import hmac
import html
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

from flask import Flask, Request, Response, current_app, request

from fovea.search.errors import FoveaError
from fovea.web.contract.cookies import keep_cookie
from fovea.web.contract.problems import Problem

from .proxies import BY_PROXY, FORWARDED

__all__ = [
    "ANY_ADDRESS",
    "LOOPBACK",
    "allowed_name",
    "bound_names",
    "bracketed",
    "is_address",
    "is_here",
    "is_loopback",
    "new_token",
    "outward_address",
    "protect",
]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANY_ADDRESS = "*"  # among the allowed names: every IP address

COOKIE = "fovea_token"
COOKIE_AGE_S = 365 * 24 * 3600
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:(?P<port>[0-9]{1,5}))?", re.ASCII)
PORTS = {"http": "80", "https": "443"}
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self'; connect-src 'self'; font-src 'self'; manifest-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: the Origin of our own forms would be "null", like that of another site's.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
DEFAULTS = HEADERS | {"Cache-Control": "no-cache, private"}  # where an answer has no other


def protect(
    app: Flask, *, names: Iterable[str], token: str | None, only_by_proxy: bool = False
) -> None:
    """Check every request, and add security headers to every answer.

    ``names`` are allowed in the Host header, with any port unless they have one. If there is a
    token, requests must present it: as a cookie, in ``Authorization: Bearer``, or once as
    ``?token=``, which sets the cookie. With ``only_by_proxy``, only trusted proxies are answered.
    """
    allowed = frozenset(name.lower() for name in names)
    app.extensions["fovea.has_token"] = token is not None  # for what the API's page shows

    def guard(asked: Request) -> Response | None:
        if only_by_proxy and not asked.environ.get(BY_PROXY):
            raise Problem(403, "Forbidden", "this server answers only its proxy")
        _check_host(asked, allowed)
        _check_site(asked)
        return None if token is None else _check_token(asked, token)

    app.extensions["fovea.guard"] = guard  # the server calls it too, before it reads a large body
    app.before_request(lambda: guard(request))

    @app.after_request
    def add_headers(response: Response) -> Response:
        known = {name.lower() for name in response.headers.keys()}
        for name, value in DEFAULTS.items():
            if name.lower() not in known:
                response.headers.add(name, value)
        return response


def new_token() -> str:
    """Make a secret of 192 random bits that can stand in an address."""
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether a server bound to this name or address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_here(asked: Request) -> bool:
    """Whether a request comes from this machine, and no header tells of a proxy on the way.

    A proxy here that adds no header, or a tunnel that ends here, looks the same.
    """
    is_direct = not (asked.environ.get(BY_PROXY) or asked.environ.get(FORWARDED))
    return is_direct and is_loopback(asked.remote_addr or "")


def is_address(name: str) -> bool:
    """Whether a name is an IPv4 or IPv6 address, without brackets."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def bracketed(name: str) -> str:
    """Write a name as in a URL: an IPv6 address has brackets."""
    return f"[{name}]" if is_address(name) and ":" in name else name


def bound_names(host: str) -> tuple[str, ...]:
    """List the names under which a server bound to ``host`` may be addressed."""
    if is_loopback(host):
        return (*LOOPBACK, host)
    machine = socket.gethostname()
    return (*LOOPBACK, host, machine, f"{machine}.local", ANY_ADDRESS)


def outward_address() -> str | None:
    """Return this machine's address in its network, None without a network; sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an example's address (RFC 5737)
        except OSError:
            return None
        return str(probe.getsockname()[0])


# Host


def allowed_name(text: str) -> str:
    """Read a name to allow in the Host header: ``photos.lan``, ``[fd00::1]:8443``.

    Raise ``FoveaError`` for others. There are no wildcards: whoever can have a name that matches
    could let it point here.
    """
    name, port = _split_host(_ascii(f"[{text}]" if is_address(text) and ":" in text else text))
    if not name:
        raise FoveaError(
            f"{text!r} is not a host name; allow each name by itself, such as photos.example.org, "
            "without https:// and path"
        )
    return f"{bracketed(name)}:{port}" if port else name


def _ascii(text: str) -> str:
    try:
        return text.encode("idna").decode().lower() if not text.isascii() else text.lower()
    except UnicodeError:
        return ""


def _check_host(asked: Request, allowed: frozenset[str]) -> None:
    """Refuse other names: anyone's DNS can point a name to this address."""
    name, port = _split_host(asked.headers.get("Host", "").lower())
    port = port or PORTS.get(asked.scheme, "")
    if name in allowed or f"{bracketed(name)}:{port}" in allowed:
        return
    if ANY_ADDRESS in allowed and is_address(name):
        return
    raise Problem(
        421,
        "Misdirected Request",
        "the Host header does not name this server; use the address that fovea serve printed, or "
        "allow another name with its option --allow-host",
    )


@lru_cache(maxsize=64)
def _split_host(host: str) -> tuple[str, str]:
    """Return name and port of a Host header in lower case, without brackets; "" if invalid."""
    found = HOST.fullmatch(host)
    if not found:
        return "", ""
    name = found["name"].strip("[]").removesuffix(".")
    if is_address(name):
        name = str(ipaddress.ip_address(name))
    elif ":" in name:
        return "", ""
    return name, found["port"] or ""


# Origin


def _check_site(asked: Request) -> None:
    """Refuse requests from pages of other sites, unless somebody follows a link to a page here."""
    site = asked.headers.get("Sec-Fetch-Site", "none")
    changes = asked.method not in SAFE_METHODS
    if site not in ("same-origin", "none") and (changes or not _is_navigation(asked)):
        raise Problem(403, "Forbidden", "pages of other sites may not use this server")
    origin = asked.headers.get("Origin")
    if changes and origin is not None and not _is_own(asked, origin):
        raise Problem(
            403,
            "Forbidden",
            "this request comes from a page of another origin; if this server's own page sent it "
            "through a proxy, start fovea serve with --behind-proxy",
        )


def _is_navigation(asked: Request) -> bool:
    headers = asked.headers
    return (
        headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    )


def _is_own(asked: Request, origin: str) -> bool:
    """Whether scheme, name and port are those under which the client sees this server."""
    return origin.lower().removesuffix(f":{PORTS.get(asked.scheme)}") == (
        f"{asked.scheme}://{asked.host.lower()}"
    )


# Token


def _check_token(asked: Request, token: str) -> Response | None:
    """Let requests with the token through; turn a token in the address into a cookie."""
    offered = asked.args.get("token")
    if offered is not None and asked.method in ("GET", "HEAD") and _same(offered, token):
        return _welcome(asked, token)
    scheme, _, bearer = asked.headers.get("Authorization", "").partition(" ")
    if _same(asked.cookies.get(COOKIE, ""), token):
        return None
    if scheme.lower() == "bearer" and _same(bearer.strip(), token):
        return None
    if _is_navigation(asked) and asked.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        return _reload(asked, asked.full_path)  # browsers withhold a strict cookie on such a visit
    raise Problem(
        401,
        "Unauthorized",
        "open the address with the token that fovea serve printed",
        headers={"WWW-Authenticate": 'Bearer realm="fovea"'},
    )


def _same(offered: str, token: str) -> bool:
    return hmac.compare_digest(offered.encode("utf-8", "replace"), token.encode())


def _welcome(asked: Request, token: str) -> Response:
    """Set the token as a cookie and reload the page without it in the address."""
    response = _reload(asked, asked.path)
    keep_cookie(response, asked, COOKIE, token, COOKIE_AGE_S)
    return response


def _reload(asked: Request, path: str) -> Response:
    """Let the browser load the page anew: a redirect would count as the linking site's request."""
    inner = quote(f"/{path.lstrip('/')}", safe="/?&=+%")  # "//" would be another host
    place = asked.script_root + inner
    response = current_app.response_class(
        '<!doctype html><title>fovea</title><link rel="icon" href="data:,">'  # asks for none
        f'<a href="{html.escape(place)}">fovea</a>\n',
        mimetype="text/html",
    )
    response.headers["Refresh"] = f"0; url={place}"
    response.headers["Cache-Control"] = "no-store"
    return response
