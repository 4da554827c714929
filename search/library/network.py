"""Tell a network's file system from a local one.

Processes on two machines share no memory, which SQLite's WAL needs (sqlite.org/wal.html).
"""

import contextlib
import os
import sys
from pathlib import Path

__all__ = ["remote_kind"]

MOUNTS = Path("/proc/self/mountinfo")
REMOTE = frozenset(
    "9p acfs afpfs afs auristorfs beegfs ceph cifs coda davfs drvfs gfs gfs2 glusterfs gpfs "
    "grpcfuse lustre moosefs mfs ncpfs nfs nfs3 nfs4 ocfs2 orangefs osxfs panfs prl_fs pvfs2 smb2 "
    "smb3 smbfs smbnetfs vboxsf virtiofs vmhgfs webdav weka wekafs".split()
)
# What follows "fuse." in the name of a file system that a program provides.
REMOTE_PROGRAMS = frozenset(
    "ceph-fuse cephfs cifs curlftpfs davfs davfs2 gcsfuse glusterfs goofys "
    "gvfsd-fuse httpfs juicefs mfs moosefs mount-s3 nfs onedrive rclone s3fs seadrive smbnetfs "
    "sshfs vmhgfs-fuse wdfs".split()
)
DRIVE_REMOTE = 4  # of GetDriveTypeW
NAME_AT, NAME_BYTES = 72, 16  # of f_fstypename in macOS's struct statfs, with 64-bit inodes


def remote_kind(folder: Path) -> str | None:
    """Return the name of the network's file system that a folder is on; None if it is local.

    A system that does not tell counts as local.
    """
    kind = ""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.platform == "win32":
            kind = _kind_on_windows(folder)
        elif sys.platform == "darwin":
            kind = _kind_on_macos(folder)
        else:
            kind = _kind_in(MOUNTS.read_bytes(), os.fsencode(os.path.realpath(folder)))
    name, _, program = kind.partition(".")
    is_remote = name in REMOTE or (name.startswith("fuse") and program in REMOTE_PROGRAMS)
    return kind if is_remote else None


def _kind_in(mounts: bytes, path: bytes) -> str:
    """Return the kind of the innermost mount that has a path (proc_pid_mountinfo(5))."""
    best, kind = b"", ""
    for line in mounts.splitlines():
        left, _, right = line.partition(b" - ")
        place = left.split(b" ")[4]
        for code in (b"040", b"011", b"012", b"134"):  # escaped: space, tab, newline, backslash
            place = place.replace(b"\\" + code, bytes([int(code, 8)]))
        is_within = path == place or path.startswith(place.rstrip(b"/") + b"/")
        if is_within and len(place) >= len(best):  # of two at one place, the later one is seen
            best, kind = place, right.split(b" ")[0].decode("ascii", "replace")
    return kind


def _kind_on_windows(folder: Path) -> str:
    import ctypes

    drive = os.path.splitdrive(os.path.realpath(folder))[0]
    if drive.startswith("\\\\"):
        return "smbfs"
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    return "smbfs" if kernel.GetDriveTypeW(f"{drive}\\") == DRIVE_REMOTE else ""


def _kind_on_macos(folder: Path) -> str:
    import ctypes

    library = ctypes.CDLL(None)
    call = getattr(library, "statfs$INODE64", None) or library.statfs
    answer = ctypes.create_string_buffer(4096)
    if call(os.fsencode(folder), answer):
        return ""
    return answer.raw[NAME_AT : NAME_AT + NAME_BYTES].partition(b"\0")[0].decode("ascii")
