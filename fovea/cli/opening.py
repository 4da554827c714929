"""The library and the model that a command works on."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fovea.search.errors import FoveaError

if TYPE_CHECKING:
    import fovea
    from fovea.search.cluster.address import Address
    from fovea.search.library.library import Library
    from fovea.search.library.rows import ModelRow
    from fovea.search.models.better import Offer
    from fovea.search.models.info import ModelInfo

from .options import LIBRARY
from .output import talk
from .progress import counting_bar, download_bar


def named_library(folder: Path | None) -> Path:
    """Return what names the library: its folder, or the address of one on Milvus, as a path."""
    from fovea.search.library.library import default_library_folder

    return folder if folder is not None else default_library_folder()


def is_on_milvus(folder: Path | None) -> bool:
    """Whether an address of a library on Milvus stands where a folder could."""
    from fovea.search.cluster.address import address_of

    return address_of(named_library(folder)) is not None


def library_folder(folder: Path | None) -> Path:
    """Return the library's folder; of one on Milvus, that of what this machine knows of it."""
    from fovea.search.cluster.address import address_of

    place = named_library(folder)
    address = address_of(place)
    if address is None:
        return place
    from fovea.search.cluster.ledger import ledger_folder

    return ledger_folder(address)


def pass_on(library: "Library") -> None:
    """Bring Milvus up to date with what was indexed here, where the library is on Milvus."""
    from fovea.search.library.paths import is_ledger

    if not is_ledger(library):
        return
    from fovea.search.cluster.ledger import pass_on as pass_all

    with counting_bar(" changes") as progress:
        passed = pass_all(library, progress)
    if passed.written or passed.deleted:
        talk(f"passed on to Milvus: {passed.written:,} pictures, {passed.deleted:,} removed")
    if passed.switched:
        talk(f"the library on Milvus uses {passed.switched} from now on")


def existing_library(folder: Path | None) -> Path:
    """Return the library's folder. Raise ``FoveaError``, with the command, if it has no library."""
    from fovea.search.cluster.address import address_of
    from fovea.search.library.library import has_library

    if address := address_of(named_library(folder)):
        _check_indexed(address)
    place = library_folder(folder)
    if not has_library(place):
        raise FoveaError(f"no library in {place}; index a folder first: fovea index FOLDER")
    return place


def _check_indexed(address: "Address") -> None:
    """Raise ``LibraryError`` for a library on Milvus that nobody has, before it gets a ledger."""
    from fovea.search.cluster.address import local_folder
    from fovea.search.cluster.collections import Cluster
    from fovea.search.library.library import has_library

    if has_library(local_folder(address) / "ledger"):
        return
    cluster = Cluster(address)
    try:
        cluster.needed()
    finally:
        cluster.close()


def open_library(folder: Path | None) -> "Library":
    from fovea.search.library.library import Library

    return Library.open(existing_library(folder))


def damage_met(ctx: click.Context, exc: Exception) -> FoveaError | None:
    """Return what to say instead of an unexpected error, if it comes from a damaged library."""
    if LIBRARY not in ctx.meta or is_on_milvus(ctx.meta[LIBRARY]):
        return None
    from fovea.search.library.damage import explained
    from fovea.search.library.library import DATABASE

    path = library_folder(ctx.meta[LIBRARY]) / DATABASE
    return explained(path, exc) if path.is_file() else None


@contextmanager
def searchable(folder: Path | None, device: str, dtype: str) -> "Iterator[fovea.Library]":
    """Open a library for searching, and at the end say whether a better model is bundled.

    Raise ``FoveaError`` where nothing is indexed yet.
    """
    import fovea

    place = named_library(folder) if is_on_milvus(folder) else existing_library(folder)
    opened = fovea.Library.open(place, device=device, dtype=dtype, on_download=download_bar)
    with opened as library:
        if library.model is None:
            raise FoveaError(f"nothing is indexed in {place} yet: fovea index FOLDER")
        yield library
        if library.better_bundled and not is_on_milvus(folder):
            tell_of_better(library.folder, library.better_model(), library.model)


def tell_of_better(place: Path, offer: "Offer | None", former: str | None = None) -> None:
    """Say how to change the library in ``place`` to a better model than its bundled one.

    ``former`` names the library's model if an earlier version of fovea came with it. Say nothing
    where there is no offer, and while a change of model is under way.
    """
    from fovea.data import BUNDLED
    from fovea.search.library.locks import holder_of
    from fovea.search.maintenance.changeover import LOCK

    if offer is None or holder_of(place, LOCK):
        return
    command = f"fovea models use {shlex.quote(offer.name)}"
    if not _is_default(place):
        command += f" --library {shlex.quote(str(place))}"
    size = f"a download of about {offer.bytes / 1e6:,.0f} MB" if offer.bytes else "on this disk"
    if former is None:
        talk(
            f"the bundled model is small; {offer.name} understands far more and is {size}: "
            f"{command}"
        )
    elif offer.name == BUNDLED:
        talk(
            f"this library uses {former}, which was bundled earlier; to change to the better "
            f"bundled model: {command}"
        )
    else:
        talk(
            f"this library uses {former}, which was bundled earlier; the bundled model is better "
            f"now, and {offer.name}, on this disk, better still: {command}"
        )


def _is_default(place: Path) -> bool:
    from fovea.search.errors import LibraryError
    from fovea.search.library.library import default_library_folder

    try:
        return place.absolute() == default_library_folder().absolute()
    except LibraryError:  # FOVEA_LIBRARY is empty
        return False


def current_model(library: "Library") -> "ModelRow":
    from fovea.search.library.paths import place_of

    model = library.model()
    if model is None:
        raise FoveaError(f"nothing is indexed in {place_of(library)} yet: fovea index FOLDER")
    return model


def any_model(name: str | None, folder: Path | None, *, network: bool = True) -> "ModelInfo":
    """Return the model asked for, else the library's if it has one, else the best at hand."""
    from fovea.search.library.library import has_library
    from fovea.search.models.resolve import resolve_model

    current = None
    if name is None and has_library(library_folder(folder)):
        with open_library(folder) as library:
            current = library.model()
    return resolve_model(name, current, network=network, progress=download_bar)
