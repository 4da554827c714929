"""Text in pictures, by RapidOCR (PP-OCR models on ONNX Runtime), of the extra ``fovea[ocr]``.

The package carries its models, for Chinese, English and other writing in Latin letters; nothing is
downloaded, and nothing is sent. Its parts: Du et al. 2020, "PP-OCR: A Practical Ultra Lightweight
OCR System" (arXiv:2009.09941).
"""

import os
import sqlite3
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fovea.indexer.decoding.limits import MB, one_line
from fovea.search.analyses.texts import KIND, Line, store_lines

__all__ = ["ANALYSIS", "INSTALL", "TextAnalysis"]

INSTALL = "pip install 'fovea[ocr]'"
PACKAGES = ("cv2", "onnxruntime", "rapidocr")
MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
# Pixels of the long side at which a picture is looked at for any text at all, and at which lines
# are looked for in one that has some. They are read at ``side``.
GLANCE, LOOKED_AT = 640, 960
SURE = 0.5  # confidence from which a line is kept
SHORT, SURE_SHORT = 2, 0.85  # one of so few characters, which patterns and edges often look like
MOST_LINES, LONGEST = 1000, 1000  # of a picture; characters of a line
OWN = 2  # of fovea's part: raise it to have pictures read again


class TextAnalysis:
    """Find lines of text, where they are, and how sure the engine is of them."""

    kind = KIND
    said = "text in pictures"
    side = 1600
    memory = 2048 * MB  # of address space: a page of text takes 1.1 GB
    seconds = 120.0

    @property
    def version(self) -> str:
        """RapidOCR's version and its models'."""
        try:
            return f"rapidocr {version('rapidocr')} PP-OCRv6 small {OWN}"
        except PackageNotFoundError:
            return f"rapidocr PP-OCRv6 small {OWN}"

    def missing(self) -> str | None:
        """Say how to get the engine; None where it is installed, with its models."""
        if any(find_spec(name) is None for name in PACKAGES):
            return INSTALL
        there = (_models() / name for name in MODELS.values())
        return None if all(path.is_file() for path in there) else f"{INSTALL} --upgrade"

    def opened(self) -> Callable[[Image.Image], list[Any]]:
        """Load the engine; what is returned gives [text, confidence, corners] of each line."""
        read = _engine()
        warming = Image.new("RGB", (320, 96), "white")
        ImageDraw.Draw(warming).text((20, 20), "fovea 2021", fill="black", font_size=40)
        read(warming)  # the parts are loaded when they are first used
        return read

    def store(self, conn: sqlite3.Connection, image_id: int, result: Any) -> None:
        """Insert the lines that were found in an image."""
        lines = [Line(text, confidence, tuple(corners)) for text, confidence, corners in result]
        store_lines(conn, image_id, lines)


def _models() -> Path:
    found = find_spec("rapidocr")
    assert found is not None and found.origin is not None  # ``missing`` has looked
    return Path(found.origin).parent / "models"


def _engine() -> Callable[[Image.Image], list[Any]]:
    # ONNX Runtime's wheels tell their makers of each process, unless this is set before the import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import cv2
    from rapidocr import RapidOCR

    cv2.setNumThreads(1)
    threads = {f"EngineConfig.onnxruntime.{way}_op_num_threads": 1 for way in ("intra", "inter")}
    paths = {f"{part}.model_path": str(_models() / name) for part, name in MODELS.items()}
    engine: Any = RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.text_score": SURE,
            "Det.limit_type": "max",
            "Det.limit_side_len": LOOKED_AT,
            **threads,
            **paths,
        }
    )

    def read(image: Image.Image) -> list[Any]:
        if max(image.size) > GLANCE:
            small = image.copy()
            small.thumbnail((GLANCE, GLANCE), Image.Resampling.BICUBIC)
            if engine(_bgr(small), use_det=True, use_cls=False, use_rec=False).boxes is None:
                return []
        found = engine(_bgr(image), use_det=True, use_cls=True, use_rec=True)
        if found.boxes is None or found.txts is None or found.scores is None:
            return []
        lines = zip(found.txts, found.scores, found.boxes, strict=True)
        return [
            [text, float(score), _relative(box, image.size)]
            for words, score, box in list(lines)[:MOST_LINES]
            if (text := one_line(str(words), LONGEST))
            and (len(text) > SHORT or score >= SURE_SHORT)
        ]

    return read


def _bgr(image: Image.Image) -> np.ndarray:
    """Return a picture's bytes, uint8 (h, w, 3), as OpenCV orders colours."""
    return np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def _relative(box: np.ndarray, size: tuple[int, int]) -> list[float]:
    """Return corners in pixels, (4, 2), as x, y of each in shares of the picture's sides."""
    shares = np.clip(np.asarray(box, np.float64) / np.array(size), 0.0, 1.0)
    corners: list[float] = shares.ravel().tolist()
    return corners


ANALYSIS = TextAnalysis()
