"""Every error that a caller of fovea's Python API can meet and put right; each says what to do.

    FoveaError               base of all; the message is one line with the next step
    ├── ModelError           a model, its files or its device cannot be used: choose another model,
    │   │                    device or precision (``search.models``, ``search.clip``)
    │   ├── ModelUnreachable a model is not on the disk and cannot be downloaded now: try again when
    │   │                    online, or use the bundled model (``search.models``)
    │   ├── ModelDamaged     a downloaded file is not the one that was asked for: download it again
    │   │                    (``search.models``)
    │   ├── ModelRefused     a server refuses a download: check the URL (``search.models``)
    │   └── Diverged         training has diverged: lower its learning rate (``search.clip``)
    ├── LibraryError         the library, its database or its index cannot be used: check its
    │   │                    folder, permissions and disk (``search.library``, ``search.index``)
    │   ├── LibraryAway      Milvus, where the library is, does not answer: check that it runs
    │   │                    (``search.cluster``)
    │   ├── LibraryBusy      another process is writing to the library: wait, or stop that one
    │   ├── LibraryDamaged   the database is damaged: restore a backup, or salvage what is whole
    │   ├── LibraryReadOnly  the library can be searched, but not changed here: check its
    │   │                    permissions, or copy it to another folder
    │   ├── SearchRefused    a search cannot be saved under that name, or is not there
    │   │                    (``search.query.saved``)
    │   └── TagRefused       there is no such tag, or none can be called so (``search.tags.stored``)
    ├── QueryError           a query cannot be read: correct it at ``position`` (``search.query``)
    │   └── Unanswerable     a query has no answer, such as terms that cancel out: change its terms
    ├── ModelChanged         the library has changed its model during a scan: start again
    │                        (``indexer.scanning.scan``)
    └── WorkersError         worker processes cannot be started here (``indexer.workers.pool``)

``ValueError`` and ``TypeError`` are mistakes in the calling program. A file that cannot be read
raises nothing while indexing: its reason is recorded, and ``fovea verify`` lists it. ``FoveaError``
and ``ModelError`` are defined in ``search/clip/errors.py``, since ``clip`` imports nothing of ours.
"""

from fovea.search.clip.errors import FoveaError, ModelError

__all__ = [
    "FoveaError",
    "LibraryAway",
    "LibraryBusy",
    "LibraryDamaged",
    "LibraryError",
    "LibraryReadOnly",
    "ModelDamaged",
    "ModelError",
    "ModelUnreachable",
    "QueryError",
    "Unanswerable",
]


class LibraryError(FoveaError):
    """The library, its database or its index cannot be used as asked."""


class LibraryAway(LibraryError):
    """Milvus, where the library is, does not answer; whoever asks later may find it back.

    ``code`` tells programs and translations why: ``away``, ``away_refused`` or ``away_tls``.
    """

    def __init__(self, message: str, code: str = "away") -> None:
        super().__init__(message)
        self.code = code


class LibraryBusy(LibraryError):
    """Another process is writing to the library."""


class LibraryDamaged(LibraryError):
    """The library's database contradicts itself, or parts of it cannot be read."""


class LibraryReadOnly(LibraryError):
    """The library can be searched, but not changed here."""


class ModelUnreachable(ModelError):
    """A model is not on the disk, and the network is off or its server does not answer."""


class ModelDamaged(ModelError):
    """A downloaded file has another SHA-256 than the one that was asked for."""


class QueryError(FoveaError):
    """A query that cannot be read.

    ``position`` is where, in characters from 0, and ``expected`` says what to write there.
    ``code`` and ``params`` say the same to programs and translations.
    """

    def __init__(
        self,
        message: str,
        code: str,
        *,
        position: int | None = None,
        expected: str | None = None,
        **params: str | int,
    ) -> None:
        super().__init__(message)
        self.code, self.params = code, params
        self.position, self.expected = position, expected


class Unanswerable(QueryError):
    """A query that can be read but has no answer."""
