"""Where a library on Milvus is: ``milvus://HOST:PORT/NAME``, and what only the environment says.

A token stands in no address, since those are in process lists, histories and logs.
"""

import base64
import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fovea.search.errors import LibraryError

__all__ = ["FOLDER", "SCHEME", "Access", "Address", "address_of", "local_folder"]

SCHEME = "milvus"
PORT = 19530
FOLDER = "FOVEA_CLUSTER_FOLDER"
TOKEN, DATABASE = "FOVEA_MILVUS_TOKEN", "FOVEA_MILVUS_DATABASE"
TLS, CA = "FOVEA_MILVUS_TLS", "FOVEA_MILVUS_CA"
CERTIFICATE, KEY, SERVER_NAME = (
    "FOVEA_MILVUS_CERTIFICATE",
    "FOVEA_MILVUS_KEY",
    "FOVEA_MILVUS_SERVER_NAME",
)
BEGINNING = re.compile(r"\s*milvus:/*", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
FORM = "milvus://HOST:PORT/NAME, with a NAME of letters, digits and underscores"


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a library on Milvus."""

    host: str
    port: int
    name: str

    @classmethod
    def read(cls, text: str) -> "Address":
        """Parse an address. Raise ``LibraryError``, which repeats no more of it than its host."""
        if "@" in text:
            raise LibraryError(
                "the address of a library on Milvus has no user or token, which every process here "
                f"could read in it; put the token into {TOKEN}, and write {FORM}"
            )
        try:
            parts = urlsplit(BEGINNING.sub("milvus://", text.strip()))  # ``Path`` merges slashes
            host, port = parts.hostname, parts.port or PORT
        except ValueError:  # whose message repeats the text
            parts, host, port = None, None, PORT
        name = "" if parts is None else unquote(parts.path.strip("/"))
        if parts is None or not host or parts.query or parts.fragment or not NAME.fullmatch(name):
            raise LibraryError(f"this is not the address of a library on Milvus; write {FORM}")
        return cls(host, port, name)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}://{host}:{self.port}/{self.name}"


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach Milvus, from the environment; ``repr`` shows no secret."""

    token: str = field(default="", repr=False)
    database: str = ""
    secure: bool = False
    ca: str = ""  # file of the authorities that sign the server's certificate
    certificate: str = ""  # files of this client's certificate and key
    key: str = field(default="", repr=False)
    server_name: str = ""  # in the server's certificate, if that is not its host

    @classmethod
    def of_environment(cls) -> "Access":
        """Read it. Raise ``LibraryError`` for files that are not there, or do not go alone."""
        names = (TOKEN, DATABASE, CA, CERTIFICATE, KEY, SERVER_NAME)
        token, database, ca, certificate, key, server_name = (
            os.environ.get(name, "") for name in names
        )
        for name, path in ((CA, ca), (CERTIFICATE, certificate), (KEY, key)):
            if path and not os.path.isfile(path):
                raise LibraryError(f"{name} names no file; correct it, or unset it")
        if bool(certificate) != bool(key) or (certificate and not ca):
            raise LibraryError(f"{CERTIFICATE} and {KEY} go together, with {CA}; name all three")
        secure = os.environ.get(TLS, "") not in ("", "0") or bool(ca or certificate)
        return cls(token, database, secure, ca, certificate, key, server_name)

    def scrubbed(self, text: str) -> str:
        """Return a text without the token, for messages."""
        sent = base64.b64encode(self.token.encode()).decode()
        for secret in filter(None, (self.token, *self.token.split(":", 1)[1:], sent)):
            text = text.replace(secret, "…")
        return text


def address_of(folder: "str | os.PathLike[str] | None") -> Address | None:
    """Return the address that stands where a folder could; None for a folder.

    Raise ``LibraryError`` for one that cannot be read.
    """
    text = "" if folder is None else os.fspath(folder)
    return Address.read(text) if isinstance(text, str) and BEGINNING.match(text) else None


def local_folder(address: Address) -> Path:
    """Return where this user keeps what belongs to a library on Milvus: thumbnails, marks, rows.

    ``FOVEA_CLUSTER_FOLDER`` may name another folder for all such libraries, shared or not.
    """
    named = os.environ.get(FOLDER)
    if named == "":
        raise LibraryError(f"{FOLDER} is empty; set it to a folder, or unset it")
    if named is None:
        from platformdirs import user_data_path

        base = user_data_path("fovea", appauthor=False) / "milvus"
    else:
        base = Path(named)
    database = os.environ.get(DATABASE, "")
    known = f"{address}?{database}" if database not in ("", "default") else str(address)
    mark = hashlib.sha256(known.encode()).hexdigest()[:8]
    return base / f"{re.sub('[^A-Za-z0-9.]', '-', address.host)}-{address.name}-{mark}"
