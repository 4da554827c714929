"""A change of model in a background process, which outlives the command that started it.

The model to change to is recorded in the library, so the process can be started again after an
interruption, and ends when something else is decided. It writes to a log beside the library.
"""

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from fovea.indexer.workers.host import command, step_back
from fovea.search.clip.disk import FULL, room_advice
from fovea.search.errors import FoveaError
from fovea.search.library.library import Library
from fovea.search.library.locks import holder_of
from fovea.search.maintenance.changeover import LOCK

__all__ = ["log_path", "start"]

NICE = 10
START_S = 20.0  # for the process to begin, or to fail
TAKE_OVER_S = 300.0  # for another process to end its last batch


def log_path(folder: Path) -> Path:
    """Return the log of the process."""
    return folder / "changeover.log"


def start(folder: Path, **options: Any) -> int:
    """Embed with the pending model of the library in a folder, in the background.

    ``options`` are ``device``, ``dtype``, ``workers``, ``batch_size`` and ``incomplete``. Return
    the process's id once it works. Raise ``FoveaError`` with the reason if it ends at once.
    """
    asked = json.dumps({"library": str(folder.absolute()), **options})
    try:
        with log_path(folder).open("ab") as log:
            process = subprocess.Popen(
                command(__name__, asked),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder.absolute().anchor,
                start_new_session=True,  # it outlives the terminal
            )
    except OSError as exc:
        advice = f"{exc.strerror or exc}; check its permissions"
        if exc.errno in FULL:
            advice = room_advice(folder, exc)
        raise FoveaError(f"cannot write {log_path(folder)}: {advice}") from exc
    # A thread waits for its end, so that it does not stay a zombie of a caller that lives longer.
    waiting = threading.Thread(target=process.wait, daemon=True)
    waiting.start()
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and waiting.is_alive():
        if holder_of(folder, LOCK) == str(process.pid):
            return process.pid
        waiting.join(0.1)
    if not waiting.is_alive() and process.returncode:
        raise FoveaError(_last_line(log_path(folder)) or "the process ended at once")
    return process.pid


def _last_line(path: Path) -> str:
    lines = path.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1].partition("\t")[2] if lines else ""


def main(settings: str) -> None:
    """Change the model as ``settings`` say, the JSON that ``start`` has written."""
    step_back(NICE)
    asked = json.loads(settings)
    try:
        _say(_switched(Path(asked.pop("library")), **asked))
    except FoveaError as exc:
        _say(str(exc))
        sys.exit(1)


def _say(text: str) -> None:
    moment = datetime.now().astimezone().isoformat(timespec="seconds")
    print(f"{moment}\t{text}", flush=True)


def _switched(folder: Path, *, device: str = "auto", dtype: str = "auto", **options: Any) -> str:
    """Embed and activate the pending model; return what came of it, for the log."""
    from fovea.search.cluster.ledger import ledger_of, pass_on
    from fovea.search.maintenance.changeover import next_model
    from fovea.search.models.resolve import resolve_known

    from .switch import switch_model

    with Library.open(folder) as library:
        row = next_model(library)
        if row is None:
            return "no change of model is pending"
        model = resolve_known(row, network=False)
        _say(f"embedding with {model.name}")

        report = switch_model(
            library,
            model=model,
            load_encoder=lambda: model.load(device=device, dtype=dtype),
            wait_s=TAKE_OVER_S,
            **options,
        )
        if report.switched and ledger_of(library) is not None:
            pass_on(library)
    return json.dumps({"model": model.name, **asdict(report)})
