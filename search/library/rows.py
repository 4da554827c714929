"""The rows of the library, as values that cross module borders."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from .facts.signatures import StoredSignature

__all__ = [
    "Counts",
    "FileEntry",
    "FileRow",
    "FileState",
    "FileWrite",
    "ImageMetadata",
    "ModelRow",
    "Moments",
    "NewImage",
    "ReportedState",
    "Root",
    "RootState",
    "WriteBatch",
]

FileState = Literal["indexed", "skipped", "failed", "missing"]
ReportedState = Literal["indexed", "skipped", "failed", "missing", "offline"]  # to people
RootState = Literal["online", "offline"]


@dataclass(frozen=True, slots=True)
class Root:
    """An indexed folder. An offline one is missing or unmounted; its files stay searchable."""

    id: int
    path: bytes
    state: RootState
    added_at: str  # ISO 8601, UTC
    scanned_at: str | None


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model that the library knows; its identity is its weights' SHA-256."""

    id: int
    name: str
    identity: str
    dim: int
    source: str


class FileRow(NamedTuple):
    """What a scan compares with the disk: a tuple, since there may be a million."""

    id: int
    size: int
    mtime_ns: int
    state: FileState
    image_id: int | None
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file as ``verify`` reports it.

    A searchable file is ``offline`` with its root, and ``missing`` if it is kept though it is gone.
    """

    path: bytes
    state: ReportedState
    reason: str | None


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """The metadata of an image; ``None`` where its file has none."""

    width: int | None = None  # pixels, after the orientation is applied
    height: int | None = None
    format: str | None = None
    orientation: int | None = None  # EXIF, 1 to 8
    taken_at: str | None = None  # ISO 8601, the camera's local time; as long as it is sure
    camera: str | None = None
    lens: str | None = None
    exposure: float | None = None  # seconds
    f_number: float | None = None
    iso: int | None = None
    focal_length: float | None = None  # millimetres
    latitude: float | None = None  # degrees, north positive
    longitude: float | None = None  # degrees, east positive
    altitude: float | None = None  # metres
    damaged: str | None = None  # what is missing of the picture, in words
    dated_by: str | None = None  # the tag that ``taken_at`` is from
    duration_ms: int | None = None  # of a video; None for pictures
    poster_ms: int | None = None  # the time of the frame that stands for a video


@dataclass(frozen=True, slots=True)
class Moments:
    """What a model has embedded of a video: frames, in the order of their times."""

    times: np.ndarray  # int64 (n,), milliseconds from its beginning, ascending
    vectors: np.ndarray  # float32 (n, d), unit rows


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image to store: its SHA-256, its length and, unless it is known, its embedding.

    A video's embedding is that of one frame; ``moments`` has more of them.
    """

    hash: bytes
    bytes: int
    metadata: ImageMetadata = field(default_factory=ImageMetadata)
    vector: np.ndarray | None = None  # float32 (d,), unit length
    signature: StoredSignature | None = None
    moments: Moments | None = None


@dataclass(frozen=True, slots=True)
class FileWrite:
    """A file's new row; ``hash`` is its content's, which is stored already or in the batch."""

    path: bytes
    root_id: int
    size: int
    mtime_ns: int
    hash: bytes | None
    state: FileState = "indexed"
    reason: str | None = None
    ctime_ns: int | None = None  # of the inode's last change, in nanoseconds; None if not known


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """The rows of one transaction; vectors belong to ``model_id``, else to the current model.

    ``refreshed`` are known images whose metadata have been read anew.
    """

    new_images: Sequence[NewImage] = ()
    files: Sequence[FileWrite] = ()
    model_id: int | None = None
    refreshed: Sequence[NewImage] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """The size of a library; ``files`` counts the states that ``verify`` reports."""

    images: int
    embeddings: int  # of the current model
    files: dict[ReportedState, int]
