"""Index the working directory by rclip, or in its way.

``beside_rclip.py`` runs it in another environment:

    python rclip_side.py rclip|imitation MODEL_FOLDER VECTORS

Print ``seconds`` and ``loading`` as JSON; write the vectors. The imitation reads, decodes in full
and resizes with Pillow in threads, and encodes in float32 with onnxruntime, eight at a time, as
rclip 3.3 does: in one process. Imports nothing of ours.
"""

import hashlib
import io
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 8  # rclip's own
SIZE = 256
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def main(kind: str, model: str, vectors: str) -> None:
    """Measure one run over the working directory."""
    started = time.perf_counter()
    loading, found = (whole if kind == "rclip" else imitated)(Path(model))
    seconds = time.perf_counter() - started
    np.savez(vectors, **found)  # type: ignore[arg-type]  # of arrays by name
    print(json.dumps({"seconds": seconds, "loading": loading}))


def whole(model: Path) -> tuple[float, dict[str, np.ndarray]]:
    """Have rclip index the folder."""
    from rclip import main as program  # type: ignore[import-not-found]  # only there
    from rclip import model_download

    loading = 0.0

    def timed(load: Callable[[], Any]) -> Callable[[], Any]:
        def loaded() -> Any:
            nonlocal loading
            began = time.perf_counter()
            session = load()
            loading += time.perf_counter() - began
            return session

        return loaded

    for name in ("load_visual_index_session", "load_visual_query_session"):
        setattr(model_download, name, timed(getattr(model_download, name)))
    _, _, database = program.init_rclip(os.getcwd(), BATCH)
    database.close()
    place = Path(os.environ["RCLIP_DATADIR"]) / "db.sqlite3"
    rows = sqlite3.connect(place).execute("SELECT filepath, vector FROM images")
    return loading, {os.path.basename(path): np.frombuffer(v, np.float32) for path, v in rows}


def imitated(model: Path) -> tuple[float, dict[str, np.ndarray]]:
    """Read and decode in threads; encode eight at a time."""
    import onnxruntime  # only there

    started = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores = os.cpu_count() or 1
    session = onnxruntime.InferenceSession(
        str(model / "visual.onnx"), sess_options=options, providers=["CPUExecutionProvider"]
    )
    loading = time.perf_counter() - started
    names = sorted(entry.name for entry in os.scandir(".") if entry.is_file())
    found: dict[str, np.ndarray] = {}
    with ThreadPoolExecutor(min(16, cores)) as threads:
        ahead = [threads.submit(read, name) for name in names[: 3 * BATCH]]
        for start in range(0, len(names), BATCH):
            later = names[start + 3 * BATCH : start + 4 * BATCH]
            batch = [future.result() for future in ahead[:BATCH]]
            ahead = ahead[BATCH:] + [threads.submit(read, name) for name in later]
            (rows,) = session.run(None, {"input": np.stack(batch)})
            rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
            found |= dict(zip(names[start : start + BATCH], rows, strict=True))
    return loading, found


def read(name: str) -> np.ndarray:
    """Return a file's picture as rclip prepares it: float32 (3, size, size)."""
    from PIL import Image

    data = Path(name).read_bytes()
    hashlib.sha256(data[: 1 << 20] + data[-1024:]).hexdigest()
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    short = min(image.size)
    width, height = (int(SIZE * side / short) for side in image.size)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    image = image.crop((left, top, left + SIZE, top + SIZE))
    return ((np.asarray(image, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
