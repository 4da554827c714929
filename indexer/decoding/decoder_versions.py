"""What decodes here: a failure is worth another attempt when that has changed."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from fovea.search.library.library import Library

_DECODERS = ("fovea", "pillow", "pillow-heif", "rawpy")


def decoders() -> str:
    """Name the packages that decode, with their versions."""
    return ", ".join(f"{name} {_version(name)}" for name in _DECODERS)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def changed_decoders(library: Library, root_ids: Iterable[int]) -> list[int]:
    """Return those of the roots that were scanned to the end by other decoders than today's."""
    rows = library.rows("SELECT key, value FROM library WHERE key LIKE 'decoders:%'")
    noted, today = dict(rows), decoders()
    return [root_id for root_id in root_ids if noted.get(f"decoders:{root_id}", today) != today]


def note_decoders(library: Library, root_ids: Iterable[int]) -> None:
    """Remember that these roots have been scanned to the end by today's decoders."""
    today = decoders()
    with library.transaction() as conn:
        conn.executemany(
            "INSERT INTO library (key, value) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [(f"decoders:{root_id}", today) for root_id in root_ids],
        )
