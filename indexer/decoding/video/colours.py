"""A frame as a picture: upright, of the size that is needed, in sRGB.

HDR is brought into the range of ordinary pictures: the signal of PQ or HLG is turned into light
(ITU-R BT.2100-2), its colours into those of BT.709, and the brightest light is compressed.
"""

from typing import Any

import numpy as np
from PIL import Image

from fovea.search.clip.preprocess import turned

__all__ = ["orientation_of", "picture_of", "shown_size", "small_of"]

SMALL = 32, 18  # width and height of the frames that are compared
HD = 720  # rows from which a frame that does not say so is in BT.709, not in BT.601
PQ, HLG = 16, 18  # transfer characteristics, ITU-T H.273
WIDE = 9  # colour primaries of BT.2020
WHITE = 203.0  # cd/m2 of white in HDR, ITU-R BT.2408-7
PEAK = 1000.0  # cd/m2 of the display that HLG is for
PAPER, KNEE = 0.8, 0.7  # of the light that a screen has: what white gets; where compression begins

# Linear BT.2020 to BT.709, ITU-R BT.2407-0, section 2.
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)


def small_of(frame: Any) -> np.ndarray:
    """Return a frame in few pixels to compare it with others: YUV, float32 (18, 32, 3)."""
    width, height = SMALL
    small = frame.reformat(width, height, "yuv444p", interpolation="AREA", threads=1)
    return np.asarray(small.to_ndarray(), np.float32).reshape(3, height, width).transpose(1, 2, 0)


def orientation_of(frame: Any) -> int:
    """Return how a frame is stored, 1 to 8 as in EXIF, by its display matrix.

    That turns a pixel (x, y) into (ax + cy, bx + dy); ISO/IEC 14496-12, section 6.2.2.
    """
    try:
        found = frame.side_data.get("DISPLAYMATRIX")
        values = [] if found is None else np.frombuffer(bytes(found), "<i4").tolist()
    except (KeyError, ValueError, TypeError):
        return 1
    if len(values) != 9:
        return 1
    a, b, _, c, d = values[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {(True, True): 1, (False, True): 2, (False, False): 3, (True, False): 4}[
            a >= 0, d >= 0
        ]
    return {(True, True): 5, (True, False): 6, (False, False): 7, (False, True): 8}[b >= 0, c >= 0]


def shown_size(frame: Any, stream: Any) -> tuple[int, int]:
    """Return a frame's width and height as it is shown, before it is turned upright."""
    ratio = stream.sample_aspect_ratio
    if not ratio or not 1 / 4 < ratio < 4:
        return frame.width, frame.height
    return max(1, round(frame.width * float(ratio))), frame.height


def picture_of(frame: Any, stream: Any, short: int) -> Image.Image:
    """Return a frame upright, as RGB; the short side has ``short`` pixels, or as many as it has."""
    width, height = shown_size(frame, stream)
    scale = min(1.0, short / min(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    space = None if frame.colorspace != 2 else ("ITU709" if frame.height >= HD else "ITU601")
    is_hdr = frame.color_trc in (PQ, HLG)
    made = frame.reformat(
        *size,
        "rgb48le" if is_hdr else "rgb24",
        src_colorspace=space,
        interpolation="BICUBIC",
        threads=1,
    ).to_ndarray()
    if is_hdr:
        made = _ordinary(made, frame.color_trc, frame.color_primaries == WIDE)
    return turned(Image.fromarray(made), orientation_of(frame))


def _ordinary(signal: np.ndarray, transfer: int, is_wide: bool) -> np.ndarray:
    """Tone-map HDR, uint16 (h, w, 3), to sRGB, uint8.

    Light x is kept up to ``KNEE`` = k, and becomes k + (1 - k)(1 - exp((k - x) / (1 - k))) above,
    where x is that of the brightest of the three colours; the others keep their ratio to it.
    """
    values = signal.astype(np.float32) / np.float32(65535)
    light = (_pq(values) if transfer == PQ else _hlg(values)) * np.float32(PAPER / WHITE)
    if is_wide:
        light = np.maximum(light @ _TO_709.T, 0)
    most = np.maximum(light.max(axis=2, keepdims=True), 1e-6)
    above = 1 - np.exp((KNEE - np.maximum(most, KNEE)) / (1 - KNEE))
    light = np.clip(light * (np.minimum(most, KNEE) + (1 - KNEE) * above) / most, 0, 1)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(coded * 255), np.uint8)


def _pq(values: np.ndarray) -> np.ndarray:
    """Return cd/m2 of a PQ signal, 0 to 1 (BT.2100-2, table 4)."""
    root = values ** (1 / 78.84375)
    found: np.ndarray = 10_000 * (
        np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    ) ** (1 / 0.1593017578125)
    return found


def _hlg(values: np.ndarray) -> np.ndarray:
    """Return cd/m2 of an HLG signal, 0 to 1, on a display of ``PEAK`` (BT.2100-2, table 5)."""
    upper = (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12
    scene = np.where(values <= 0.5, values**2 / 3, upper)
    bright = np.maximum(scene @ np.array([0.2627, 0.678, 0.0593], np.float32), 1e-6)[..., None]
    found: np.ndarray = PEAK * bright**0.2 * scene
    return found
