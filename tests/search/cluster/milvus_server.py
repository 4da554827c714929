"""A real Milvus server, from the package ``milvus``, that only this machine can reach.

Its own settings cannot keep it from listening on all addresses, so it runs in a network of its own,
where nothing leads in; one socket file in its folder is handed on to a port on loopback. It ends
with the process that started it, whatever that dies of.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

START_S = 120
PARTS = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
CHUNK = 1 << 16
SMALL = {  # what a machine with little memory and few cores needs of its configuration
    "log.level": "warn",
    "queryNode.segcore.interimIndex.enableIndex": "false",  # growing segments: searched exactly
    "dataCoord.segment.maxSize": "128",
}


class MilvusUnavailable(Exception):
    """Why there is no server here."""


class MilvusServer:
    """A running server. ``stop`` ends it; ``start`` starts it again with the same data and port."""

    def __init__(
        self, folder: Path, *, authorization: bool = False, settings: dict[str, str] = SMALL
    ) -> None:
        self.folder, self.authorization, self.settings = folder, authorization, settings
        self._door = _Door(folder / "socket")
        self.port = self._door.port
        self._process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        if find_spec("milvus") is None:
            raise MilvusUnavailable("the package milvus is not installed")
        unshare = shutil.which("unshare")
        if unshare is None:
            raise MilvusUnavailable("there is no unshare here, to give it a network of its own")
        self.folder.mkdir(parents=True, exist_ok=True)
        log = (self.folder / "log").open("ab")
        command = [unshare, "-rnpf", "--kill-child", "--mount-proc", sys.executable, __file__]
        command += [str(self.folder), "1" if self.authorization else "0", json.dumps(self.settings)]
        with log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_with_parent
            )
        deadline = time.monotonic() + START_S
        while not (self.folder / "ready").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                said = (self.folder / "log").read_text(errors="replace").strip()[-300:]
                raise MilvusUnavailable(f"it does not start: {said!r}")
            time.sleep(0.1)
        self._door.is_open = True

    def stop(self) -> None:
        self._door.is_open = False
        if self._process is not None:
            self._process.kill()  # and with it, all that it started
            self._process.wait()
            self._process = None
        for name in ("ready", "socket"):
            (self.folder / name).unlink(missing_ok=True)
        self._door.drop()

    def close(self) -> None:
        self.stop()
        self._door.close()


class _Door:
    """A port on loopback that leads to a socket file, while it is open."""

    def __init__(self, path: Path) -> None:
        self._path, self.is_open = path, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._connected: set[socket.socket] = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                if not self.is_open:
                    here.close()
                    continue
                there = socket.socket(socket.AF_UNIX)
                try:
                    there.connect(str(self._path))
                except OSError:
                    here.close()
                    there.close()
                    continue
                self._connected |= {here, there}
                joined(here, there)

    def drop(self) -> None:
        for one in self._connected:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._connected.clear()

    def close(self) -> None:
        self.drop()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def joined(one: socket.socket, other: socket.socket) -> None:
    """Hand what comes from each of two sockets on to the other, until both are closed."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    for pair in ((one, other), (other, one)):
        threading.Thread(target=pump, args=pair, daemon=True).start()


def _with_parent() -> None:
    """End when the process that started this one ends (Linux: ``PR_SET_PDEATHSIG``)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _raise_loopback() -> None:
    """Switch on the loopback device of a new network (``SIOCSIFFLAGS``: ``IFF_UP``)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 1))


def inside(folder: Path, authorization: bool, settings: dict[str, str]) -> None:
    """Run the server in the new network, and hand its port on to the socket file."""
    import milvus

    _raise_loopback()
    if unpacked := os.environ.get("FOVEA_TEST_MILVUS_BIN"):  # of an earlier run: 8 s
        (folder / "data").mkdir(exist_ok=True)
        if not (folder / "data" / "bin").exists():
            (folder / "data" / "bin").symlink_to(unpacked)
    config = milvus.MilvusServerConfig(
        data_dir=str(folder / "data"),
        authorization_enabled=authorization,
    )
    if authorization:
        config.set("authorization_enabled", True)
    config.extra_configs.update({f"{part}.ip": "127.0.0.1" for part in PARTS} | settings)
    server = milvus.MilvusServer(config)
    server.start()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen()
    (folder / "ready").touch()
    while True:
        there, _ = listener.accept()
        joined(there, socket.create_connection(("127.0.0.1", server.listen_port)))


if __name__ == "__main__":
    os.chdir("/")
    inside(Path(sys.argv[1]), sys.argv[2] == "1", json.loads(sys.argv[3]))
