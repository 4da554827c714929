"""Plot the metrics of a training run with matplotlib, an optional dependency."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fovea.search.clip.disk import replace_file
from fovea.search.clip.errors import ModelError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES = 8.0  # width
PANEL = 2.6  # height of a panel, in inches
DOTS = 120  # per inch


def draw_run(metrics: Path, picture: Path) -> None:
    """Plot a run's ``metrics.jsonl`` as PNG or SVG, by the suffix of ``picture``.

    From top to bottom: loss, temperature, learning rate and, if there are any, the held-out
    figures, all over the samples seen. Raise ``ModelError`` if matplotlib or the metrics are
    missing.
    """
    rows = read_metrics(metrics)
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise ModelError("drawing needs matplotlib: pip install 'fovea[plot]'") from exc
    panels = 4 if any(row.get("held_out") for row in rows) else 3
    figure = Figure(figsize=(INCHES, PANEL * panels), dpi=DOTS, layout="constrained")
    axes: Sequence[Axes] = list(figure.subplots(panels, 1, sharex=True))
    _draw_value(axes[0], rows, "loss", [row["loss"] for row in rows])
    _draw_value(axes[1], rows, "temperature", [1 / row["scale"] for row in rows])
    _draw_value(axes[2], rows, "learning rate", [row["lr"] for row in rows])
    if panels == 4:
        _draw_held_out(axes[3], rows)
    done = f"{rows[-1]['step']:,} of {rows[-1]['steps']:,} steps"
    axes[0].set_title(f"{_plain(metrics.parent.name)}: {done}")
    axes[-1].set_xlabel("samples seen")
    kind = picture.suffix.removeprefix(".") or "png"
    replace_file(picture, lambda file: figure.savefig(file, format=kind))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a run's metrics, ignoring an incomplete last line; raise ``ModelError``."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as exc:
        raise ModelError(f"cannot read {path}: {exc.strerror}; train there first") from exc
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, KeyError, TypeError) as exc:
            if number == len(lines):
                break
            raise ModelError(f"{path}, line {number}, is not a line of metrics") from exc
    if not rows:
        raise ModelError(f"{path} is empty; train there first")
    return rows


def _row(row: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: float(row[name]) for name in ("loss", "scale", "lr")}
    counts = {name: int(row[name]) for name in ("step", "steps", "samples")}
    return {**numbers, **counts, "held_out": dict(row.get("held_out", {}))}


def _draw_value(
    axes: "Axes", rows: Sequence[dict[str, Any]], name: str, values: Sequence[float]
) -> None:
    axes.plot([row["samples"] for row in rows], values, linewidth=1.2)
    axes.set_ylabel(name)
    axes.grid(alpha=0.3)


def _draw_held_out(axes: "Axes", rows: Sequence[dict[str, Any]]) -> None:
    """Plot one curve per held-out figure."""
    names = dict.fromkeys(name for row in rows for name in row["held_out"])
    for name in names:
        found = [(r["samples"], 100 * r["held_out"][name]) for r in rows if name in r["held_out"]]
        across, up = zip(*found, strict=True)
        axes.plot(across, up, marker="o", markersize=3, linewidth=1.2, label=_plain(name))
    axes.set_ylabel("held out, per cent")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def _plain(text: str) -> str:
    """Escape a text that matplotlib would read as a formula."""
    return text.replace("$", r"\$")
