"""The one place that talks to Milvus, and its errors as advice."""

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fovea.search.errors import LibraryAway, LibraryError

from .address import Access, Address

__all__ = ["AT_ONCE", "INSTALL", "SESSION", "STRONG", "Client"]

INSTALL = "pip install 'fovea[cluster]'"
CONNECT_S = 5.0
ANSWER_S = 30.0
BUILD_S = 600.0  # for loading a collection
QUICK = (
    "has_collection",
    "describe_collection",
    "list_indexes",
    "describe_index",
    "get_load_state",
)
PAUSE_S = 2.0  # after a failure, during which nobody else waits for the server
RECOVERING_S = 120.0  # after a failure, during which the server may not have loaded all yet
AT_ONCE = 16_384  # rows in one answer, of Milvus
BOUNDED = "Bounded"  # what others wrote until some seconds ago
SESSION = "Session"  # and all that this process wrote
STRONG = "Strong"  # all that anybody wrote
LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "Timeout", "timeout", "connect", "closed channel")
TLS = re.compile(r"handshake|\bssl|\btls|certificate|hostname verif|\bTSI_", re.IGNORECASE)
STARTING = re.compile(
    r"not ready|not (fully )?loaded|(node|channel|shard)s? not|available", re.IGNORECASE
)
REFUSED = re.compile(r"unauthenticated|auth check|authorization|permission den", re.IGNORECASE)


class Client:
    """A connection to Milvus, made when it is needed and again after it was lost. Thread-safe."""

    def __init__(self, address: Address, access: Access | None = None) -> None:
        self.address = address
        self.access = Access.of_environment() if access is None else access
        self._lock = threading.Lock()
        self._made: Any = None
        self._failed_at = -RECOVERING_S
        self._failure = self._code = ""

    def __repr__(self) -> str:
        return f"Client({str(self.address)!r})"

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        with self._lock:
            made, self._made = self._made, None
        _close(made)

    def _retire(self) -> None:
        """Begin with a new connection; the former one ends once nobody waits for its answers."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            later = threading.Timer(ANSWER_S, _close, [made])
            later.daemon = True
            later.start()

    # Rows

    def query(
        self,
        collection: str,
        expression: str,
        fields: Sequence[str],
        *,
        limit: int = AT_ONCE,
        consistency: str = BOUNDED,
    ) -> list[dict[str, Any]]:
        """Return the rows that meet an expression, at most ``AT_ONCE``, in no order."""
        with self._asking() as milvus:
            rows = milvus.query(
                collection,
                filter=expression,
                output_fields=list(fields),
                limit=min(limit, AT_ONCE),
                consistency_level=consistency,
                timeout=ANSWER_S,
            )
            return [dict(row) for row in rows]

    def count(self, collection: str, expression: str = "", consistency: str = BOUNDED) -> int:
        """Count the rows that meet an expression, or all."""
        with self._asking() as milvus:
            [row] = milvus.query(
                collection,
                filter=expression,
                output_fields=["count(*)"],
                consistency_level=consistency,
                timeout=ANSWER_S,
            )
            return int(row["count(*)"])

    def search(
        self,
        collection: str,
        vector: np.ndarray,
        limit: int,
        expression: str,
        fields: Sequence[str],
        params: dict[str, Any],
    ) -> list[tuple[float, dict[str, Any]]]:
        """Return the nearest rows with their cosines, best first."""
        with self._asking() as milvus:
            [found] = milvus.search(
                collection,
                data=[vector.astype(np.float32).tolist()],
                anns_field="vector",
                limit=min(limit, AT_ONCE),
                filter=expression,
                output_fields=list(fields),
                search_params={"metric_type": "IP", "params": params},
                consistency_level=BOUNDED,
                timeout=ANSWER_S,
            )
            return [(float(hit["distance"]), dict(hit["entity"])) for hit in found]

    def upsert(self, collection: str, rows: list[dict[str, Any]]) -> None:
        """Write rows; those of the same key are replaced."""
        if rows:
            with self._asking() as milvus:
                milvus.upsert(collection, rows, timeout=ANSWER_S)

    def delete(self, collection: str, expression: str) -> None:
        """Delete the rows that meet an expression on the key."""
        with self._asking() as milvus:
            milvus.delete(collection, filter=expression, timeout=ANSWER_S)

    # Collections

    def run(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of ``MilvusClient``; errors become advice as everywhere here."""
        seconds = ANSWER_S if name in QUICK else BUILD_S
        with self._asking() as milvus:
            return getattr(milvus, name)(*arguments, timeout=seconds, **named)

    def run_local(self, name: str) -> Any:
        """Call a method of ``MilvusClient`` that asks the server nothing."""
        with self._asking() as milvus:
            return getattr(milvus, name)()

    def flush(self, collection: str) -> None:
        """Have everything written so far put on the disk."""
        with self._asking() as milvus:
            milvus.flush(collection, timeout=BUILD_S)

    # The connection

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Any]:
        milvus = self._connected()
        try:
            yield milvus
        except LibraryError:
            raise
        except Exception as exc:
            is_closed = isinstance(exc, ValueError) and "closed channel" in str(exc)  # of gRPC
            if not is_closed and not type(exc).__module__.startswith(("pymilvus", "grpc")):
                raise
            raise self._advice(exc) from None  # whose text may have what nobody should read

    def _connected(self) -> Any:
        with self._lock:
            if self._made is not None:
                return self._made
            if time.monotonic() < self._failed_at + PAUSE_S:
                raise LibraryAway(self._failure, self._code)
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would write to the terminal
            try:
                from pymilvus import MilvusClient
            except ImportError:
                raise LibraryError(f"a library on Milvus needs pymilvus: {INSTALL}") from None
            logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)  # repeats all it is given
            try:
                self._made = MilvusClient(timeout=CONNECT_S, **self._arguments())
            except Exception as exc:
                raise self._advice(exc, connecting=True) from None
            return self._made

    def _arguments(self) -> dict[str, Any]:
        access, host = self.access, self.address.host
        host = f"[{host}]" if ":" in host else host
        found: dict[str, Any] = {
            "uri": f"http{'s' if access.secure else ''}://{host}:{self.address.port}",
            "token": access.token,
            "db_name": access.database,
            "dedicated": True,  # others with the same address and token may have other certificates
        }
        if access.secure:
            found |= {"secure": True, "server_name": access.server_name or self.address.host}
        if access.certificate:
            found |= {
                "ca_pem_path": access.ca,
                "client_pem_path": access.certificate,
                "client_key_path": access.key,
            }
        elif access.ca:
            found["server_pem_path"] = access.ca  # the only one that is read without a certificate
        return found

    def _advice(self, exc: Exception, *, connecting: bool = False) -> LibraryError:
        """Turn an error into advice; after a lost connection, begin with a new one."""
        said = self.access.scrubbed(_said(exc))
        is_tls = bool(TLS.search(said)) and (connecting or "UNAVAILABLE" in said)
        if not is_tls and REFUSED.search(said):
            message = f"Milvus at {self._place()} refuses this user; check FOVEA_MILVUS_TOKEN"
            return LibraryAway(message, "away_refused") if connecting else LibraryError(message)
        if not (is_tls or connecting or any(sign in said for sign in LOST)):
            if STARTING.search(said) or time.monotonic() < self._failed_at + RECOVERING_S:
                return LibraryAway(f"Milvus at {self._place()} is not ready yet; wait a moment")
            return LibraryError(f"Milvus at {self._place()} cannot do that: {said[:300]}")
        if is_tls:
            self._failure = (
                f"Milvus at {self._place()} and this machine do not agree on TLS; check the "
                "certificates, and FOVEA_MILVUS_TLS, _CA, _CERTIFICATE, _KEY and _SERVER_NAME"
            )
        else:
            kind = "with" if self.access.secure else "without"
            self._failure = (
                f"Milvus at {self._place()} does not answer; check that it runs and can be reached "
                f"from here, {kind} TLS"
            )
        self._code = "away_tls" if is_tls else "away"
        self._failed_at = time.monotonic()
        if not connecting:  # with the lock
            self._retire()
        return LibraryAway(self._failure, self._code)

    def _place(self) -> str:
        return f"{self.address.host}:{self.address.port}"


def _close(made: Any) -> None:
    if made is not None:
        with contextlib.suppress(Exception):
            made.close()


def _said(exc: BaseException) -> str:
    """Return what an error says, and the one that it comes from."""
    cause = exc.__cause__  # that of gRPC's errors is the error itself
    return " ".join(" ".join(str(one).split()) for one in (exc, cause) if one is not None)
