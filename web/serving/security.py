"""Who may ask: this machine, or whoever has the token; and what a page of ours may load.

A browser runs strangers' scripts beside ours. They cannot read our answers (no CORS), must not
cause changes (Origin, Fetch Metadata), and must not reach us under a name of theirs (Host: DNS
rebinding). A client that is no browser sends none of those headers and is let through.
"""

import hmac
import html
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from urllib.parse import quote

from flask import Flask, Request, Response, current_app, request

from fovea.web.contract.problems import Problem

__all__ = [
    "ANY_ADDRESS",
    "LOOPBACK",
    "bound_names",
    "is_loopback",
    "new_token",
    "outward_address",
    "protect",
]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANY_ADDRESS = "*"  # among the names: whatever address, as opposed to a name, leads here

COOKIE = "fovea_token"
COOKIE_AGE_S = 365 * 24 * 3600
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:[0-9]{1,5})?", re.ASCII)
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: by that a form's Origin would be "null", as a stranger's is.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def protect(app: Flask, *, names: Iterable[str], token: str | None) -> None:
    """Check every request and dress every answer; ``names`` are those that lead to this server.

    With a token, a request must bring it: as a cookie, in ``Authorization: Bearer``, or once as
    ``?token=``, which is answered by the cookie.
    """
    allowed = frozenset(name.lower() for name in names)

    def guard(asked: Request) -> Response | None:
        _check_host(asked, allowed)
        _check_site(asked)
        return None if token is None else _check_token(asked, token)

    app.extensions["fovea.guard"] = guard  # the server asks it too, before it takes a large body
    app.before_request(lambda: guard(request))

    @app.after_request
    def dress(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-cache, private"
        return response


def new_token() -> str:
    """A secret that nobody guesses: 192 random bits, fit for an address."""
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to this name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bound_names(host: str) -> tuple[str, ...]:
    """The names under which a server that is bound to ``host`` may be asked."""
    if is_loopback(host):
        return (*LOOPBACK, host)
    machine = socket.gethostname()
    return (*LOOPBACK, host, machine, f"{machine}.local", ANY_ADDRESS)


def outward_address() -> str | None:
    """This machine's address in its network, where it is in one; nothing is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an example's (RFC 5737), to choose a way by
        except OSError:
            return None
        return str(probe.getsockname()[0])


# Host


def _check_host(asked: Request, allowed: frozenset[str]) -> None:
    """Refuse a name that is not ours: a stranger's, which his DNS leads to this address."""
    name = _host_name(asked.headers.get("Host", ""))
    if name in allowed or (ANY_ADDRESS in allowed and _is_address(name)):
        return
    raise Problem(421, "Misdirected Request", "this server does not answer under the name in Host")


def _host_name(host: str) -> str:
    """The name in a Host header, lower case, without port and brackets; "" for what is none."""
    found = HOST.fullmatch(host.lower())
    return found["name"].strip("[]").removesuffix(".") if found else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


# Origin


def _check_site(asked: Request) -> None:
    """Refuse what another site's page asks for, unless a person follows a link to a page here."""
    site = asked.headers.get("Sec-Fetch-Site", "none")
    changes = asked.method not in SAFE_METHODS
    if site not in ("same-origin", "none") and (changes or not _is_navigation(asked)):
        raise Problem(403, "Forbidden", "pages of other sites may not use this server")
    origin = asked.headers.get("Origin")
    if changes and origin is not None and not _is_own(asked, origin):
        raise Problem(403, "Forbidden", "this request comes from a page of another origin")


def _is_navigation(asked: Request) -> bool:
    headers = asked.headers
    return (
        headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    )


def _is_own(asked: Request, origin: str) -> bool:
    host = asked.headers.get("Host", "").lower()
    return origin.lower() in (f"http://{host}", f"https://{host}")


# Token


def _check_token(asked: Request, token: str) -> Response | None:
    """Let through who has the token; answer who brings it in the address with a cookie."""
    offered = asked.args.get("token")
    if offered is not None and asked.method in ("GET", "HEAD") and _same(offered, token):
        return _welcome(asked, token)
    scheme, _, bearer = asked.headers.get("Authorization", "").partition(" ")
    if _same(asked.cookies.get(COOKIE, ""), token):
        return None
    if scheme.lower() == "bearer" and _same(bearer.strip(), token):
        return None
    if _is_navigation(asked) and asked.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        return _turn(asked.full_path)  # a strict cookie stays away from such a visit
    raise Problem(
        401,
        "Unauthorized",
        "open the address with the token that fovea serve has printed",
        headers={"WWW-Authenticate": 'Bearer realm="fovea"'},
    )


def _same(offered: str, token: str) -> bool:
    return hmac.compare_digest(offered.encode("utf-8", "replace"), token.encode())


def _welcome(asked: Request, token: str) -> Response:
    """Keep the token as a cookie and go on without it in the address."""
    response = _turn(asked.path)
    response.set_cookie(
        COOKIE,
        token,
        max_age=COOKIE_AGE_S,
        httponly=True,
        samesite="Strict",
        secure=asked.is_secure,
    )
    return response


def _turn(path: str) -> Response:
    """Ask the browser to come again by itself: a redirect would count as the link's site's."""
    place = quote(f"/{path.lstrip('/')}", safe="/?&=+%")  # "//" would be another host
    response = current_app.response_class(
        f'<!doctype html><title>fovea</title><a href="{html.escape(place)}">fovea</a>\n',
        mimetype="text/html",
    )
    response.headers["Refresh"] = f"0; url={place}"
    response.headers["Cache-Control"] = "no-store"
    return response
