"""``fovea serve``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fovea.search.clip.errors import FoveaError

if TYPE_CHECKING:
    from fovea.web.engine.engine import Engine

from .opening import library_folder, tell_of_better
from .options import FILE, library_option, model_option, value_option
from .output import talk


@click.command(short_help="Serve the library as a web page while indexing folders.")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=FILE)
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
@click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")
@library_option
@model_option("Embed with this model in a new library.  [default: the best at hand]")
def serve(
    folders: tuple[Path, ...],
    host: str,
    port: int,
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
    from fovea.web.serving.security import bound_names, is_loopback, new_token
    from fovea.web.serving.server import serve as serve_app

    for place in folders:
        if not place.is_dir():
            raise FoveaError(f"{place} is not a folder; name a folder of pictures")
    token = None if is_loopback(host) else new_token()
    app = create_app(library_folder(folder), model=name, token=token, hosts=bound_names(host))

    def ready(bound: int) -> None:
        addresses = _addresses(host, bound, token)
        _say_where(addresses, host)
        if name is None:
            _tell_of_better(app.extensions["fovea"])
        app.extensions["fovea"].warm()
        if folders and not app.extensions["fovea"].is_writable:
            talk("the library is read-only here: it can be searched, but no folder is indexed")
        elif folders:
            app.extensions["fovea.scans"].start([place.absolute() for place in folders])
        if not no_browser:
            _open_browser(addresses[0])

    try:
        serve_app(app, host, port, on_ready=ready)
    finally:
        app.extensions["fovea"].close()
    talk("stopped")


def _addresses(host: str, port: int, token: str | None) -> list[str]:
    """List the addresses to open; for a wildcard, this machine's name and its address."""
    import socket

    from fovea.web.serving.security import outward_address

    names: list[str | None] = [host]
    if host in ("", "0.0.0.0", "::"):
        names = [socket.gethostname(), outward_address()]
    ending = f"?token={token}" if token else ""
    return [
        f"http://{f'[{name}]' if ':' in name else name}:{port}/{ending}" for name in names if name
    ]


def _say_where(addresses: list[str], host: str) -> None:
    from fovea.web.serving.security import is_loopback

    if not is_loopback(host):
        talk(
            "the photos are now visible on the network to anyone with the address below; it is "
            "shown only once, and the connection is not encrypted"
        )
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
