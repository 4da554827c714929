"""``fovea serve``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fovea.search.clip.errors import FoveaError

if TYPE_CHECKING:
    from fovea.web.engine.engine import Engine

from .opening import is_on_milvus, named_library, tell_of_better
from .options import PLACE, library_option, model_option, value_option
from .output import talk

PROXY = "--behind-proxy"
LOOPBACK = "loopback"  # as its value: the proxy runs on this machine


class Serve(click.Command):
    """A command whose ``--behind-proxy`` takes a value only if that is an address.

    Otherwise ``fovea serve --behind-proxy FOLDER`` would take the folder for one.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for place, text in enumerate(args):
            if text == "--":
                break
            if text == PROXY and not _are_addresses(args[place + 1 : place + 2]):
                args[place] = f"{PROXY}={LOOPBACK}"
        return super().parse_args(ctx, args)


@click.command(cls=Serve, short_help="Serve the library as a web page while indexing folders.")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=PLACE)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Other machines need the token that is printed.",
)
@value_option(
    "--port", "Port to listen on; 0 picks a free one.", "N", click.IntRange(0, 65535), 8000
)
@click.option(
    "--allow-host",
    "names",
    metavar="NAME",
    multiple=True,
    help="Another name in the addresses of visitors, such as photos.example.org; repeatable.",
)
@click.option(
    PROXY,
    "proxies",
    metavar="[ADDRESS]",
    multiple=True,
    help="Believe the X-Forwarded headers of a proxy on this machine, or at this IP address or "
    "network; repeatable.",
)
@click.option(
    "--prefix", metavar="PATH", default="", help="Path that the proxy serves, such as /photos."
)
@click.option("--no-token", is_flag=True, help="Let in everybody whom the proxy lets in.")
@click.option(
    "--watch", "watches", is_flag=True, help="Index what changes in the folders, as it changes."
)
@click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")
@library_option
@model_option("Embed with this model in a new library.  [default: the best at hand]")
def serve(
    folders: tuple[Path, ...],
    host: str,
    port: int,
    names: tuple[str, ...],
    proxies: tuple[str, ...],
    prefix: str,
    no_token: bool,
    watches: bool,
    no_browser: bool,
    folder: Path | None,
    name: str | None,
) -> None:
    """Serve the library as a web page, and index each FOLDER in the background.

    \b
    fovea serve ~/Pictures
    """
    # One core per request: matrix products that each want all cores wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from fovea.web.app import create_app
    from fovea.web.serving.proxies import clean_prefix
    from fovea.web.serving.security import allowed_name, bound_names, bracketed, is_loopback
    from fovea.web.serving.server import serve as serve_app

    for place in folders:
        if not place.is_dir():
            raise FoveaError(f"{place} is not a folder; name a folder of pictures")
    prefix = clean_prefix(prefix)
    allowed = [allowed_name(text) for text in _split(names)]
    trusted = _trusted(_split(proxies))
    _check_proxies(trusted, host, no_token)
    is_outside = bool(trusted or prefix or any(not _is_loopback_name(one) for one in allowed))
    token = _token(host, is_outside, bool(trusted), no_token)
    app = create_app(
        named_library(folder),
        model=name,
        token=token,
        hosts=[*bound_names(host), *allowed],
        proxies=trusted,
        prefix=prefix,
        is_at_home=is_loopback(host) and not is_outside,
    )

    def ready(bound: int) -> None:
        ending = f"{prefix}/{f'?token={token}' if token else ''}"
        addresses = [f"http://{place}{ending}" for place in _places(host, bound)]
        if trusted:
            addresses += [f"https://{bracketed(one)}{ending}" for one in allowed]
        _say_where(addresses, host, is_outside, token)
        if name is None and not is_on_milvus(folder):
            _tell_of_better(app.extensions["fovea"])
        app.extensions["fovea"].warm()
        if (folders or watches) and not app.extensions["fovea"].is_writable:
            talk("the library is read-only here: it can be searched, but no folder is indexed")
        elif folders:
            app.extensions["fovea.scans"].start([place.absolute() for place in folders], adds=True)
        elif app.extensions["fovea"].is_writable:
            app.extensions["fovea.scans"].analyse()
        if watches and app.extensions["fovea"].is_writable:
            from fovea.web.jobs.watching import start_watching

            start_watching(app)
        if not no_browser:
            _open_browser(addresses[0])

    try:
        serve_app(app, host, port, on_ready=ready)
    finally:
        app.extensions["fovea"].close()
    talk("stopped")


def _split(values: tuple[str, ...]) -> list[str]:
    """List the values of an option that is repeated, or has several between commas."""
    return [text for value in values for text in value.replace(",", " ").split()]


def _are_addresses(values: list[str]) -> bool:
    """Whether the value after an option is one for it: addresses or networks, not a folder."""
    from ipaddress import ip_network

    try:
        return bool([ip_network(one.strip("[]"), strict=False) for one in _split(tuple(values))])
    except ValueError:
        return values == [LOOPBACK]


def _trusted(proxies: list[str]) -> list[str]:
    from fovea.web.serving.proxies import LOOPBACK_PROXIES

    found: list[str] = []
    for text in proxies:
        found += LOOPBACK_PROXIES if text == LOOPBACK else [text]
    return found


def _check_proxies(proxies: list[str], host: str, is_waived: bool) -> None:
    """Raise ``FoveaError`` where no proxy could connect, or each visitor would count as one."""
    from fovea.web.serving.proxies import LOOPBACK_PROXIES, network_of
    from fovea.web.serving.security import is_loopback

    networks = [network_of(text) for text in proxies]
    here = [network_of(text) for text in LOOPBACK_PROXIES]
    if (
        networks
        and is_loopback(host)
        and not any(a.version == b.version and a.overlaps(b) for a in networks for b in here)
    ):
        raise FoveaError(f"the proxy at {proxies[0]} cannot reach {host}; add --host ADDRESS")
    for text, network in zip(proxies, networks, strict=True):
        if is_waived and network.prefixlen == 0:
            raise FoveaError(
                f"with {PROXY} {text}, --no-token would show the photos to everybody; name the "
                "proxy's own address, or omit --no-token"
            )


def _token(host: str, is_outside: bool, by_proxy: bool, is_waived: bool) -> str | None:
    """Make a token unless only this machine can connect, or a proxy decides who may.

    Through a proxy every visitor comes from the proxy's address, perhaps that of this machine.
    """
    from fovea.web.serving.security import is_loopback, new_token

    if is_waived and not by_proxy and (is_outside or not is_loopback(host)):
        whom = "whatever reaches this server" if is_loopback(host) else "the whole network"
        raise FoveaError(
            f"--no-token would show the photos to {whom}; name the proxy that decides who may see "
            f"them by {PROXY} [ADDRESS], or omit --no-token"
        )
    return None if is_waived or (is_loopback(host) and not is_outside) else new_token()


def _is_loopback_name(name: str) -> bool:
    from fovea.web.serving.security import is_loopback

    return is_loopback(name) or is_loopback(name.rpartition(":")[0].strip("[]"))


def _places(host: str, port: int) -> list[str]:
    """List host and port to open; for a wildcard, by this machine's name and by its address."""
    import socket

    from fovea.web.serving.security import bracketed, outward_address

    names: list[str | None] = [host]
    if host in ("", "0.0.0.0", "::"):
        names = [socket.gethostname(), outward_address()]
    return [f"{bracketed(name)}:{port}" for name in names if name]


def _say_where(addresses: list[str], host: str, is_outside: bool, token: str | None) -> None:
    from fovea.web.serving.security import is_loopback

    if not is_loopback(host) and token:
        talk(
            "the photos are now visible on the network to anyone with the address below; it is "
            "shown only once, and the connection is not encrypted"
        )
    elif token:
        talk(
            "the photos are now visible to anyone who reaches the proxy and has the token below; "
            "it is shown only once"
        )
    elif is_outside:
        talk("the photos are now visible to everybody whom the proxy lets in")
    click.echo(f"fovea: open {' or '.join(addresses)} (Ctrl-C to stop)")


def _tell_of_better(engine: "Engine") -> None:
    from fovea.search.models.better import better_model
    from fovea.search.models.installed import former_bundled

    model = engine.library.model()
    former = model.name if model is not None and former_bundled(model) else None
    tell_of_better(engine.library.folder, better_model(model), former)


def _open_browser(address: str) -> None:
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
