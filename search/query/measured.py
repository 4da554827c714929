"""What a model's line and labels were measured to be worth, and the constants that they need.

They lie in ``line.json`` beside the model's weights, written by ``bench/likelihood.py`` and
``bench/labels.py``. A model without that file, or with one of other weights, was never measured.
"""

import json
import logging
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["FILE", "LabelSigns", "Measured", "Signs", "Worth", "measured_in"]

log = logging.getLogger(__name__)

FILE = "line.json"
PIECES = 3  # of evidence, for words and for pictures alike
LEAST_RIGHT = 0.6  # share of first labels
NEVER = 0.5  # share of answers told rightly by no line at all
ERRORS = 2.0  # standard errors above chance from which a line is drawn


@dataclass(frozen=True, slots=True)
class Worth:
    """The share of answers that the line told rightly, and that of a random line, 0 to 1.

    The random line is drawn as often and as deep as the measured one. docs/likelihood.md says what
    rightly means.
    """

    told: float
    chance: float
    answers: int  # measured; fewer where those of a smaller group count more

    @property
    def is_drawn(self) -> bool:
        """Whether the line is better than chance, by more than the measurement's own error.

        Half of the measured answers have no match, so never drawing a line is right for half.
        """
        error = math.sqrt(self.told * (1 - self.told) / self.answers)
        return self.told - ERRORS * error > max(self.chance, NEVER)


@dataclass(frozen=True, slots=True)
class Signs:
    """The logistic regression that turns evidence into the log-odds of a match."""

    weights: tuple[float, ...]  # of the three pieces of evidence, in their order
    bias: float
    spread: float  # usual standard deviation of a query's cosines with a library's images
    worth: Worth


@dataclass(frozen=True, slots=True)
class LabelSigns:
    """From which probability a label is shown, and how often the first one shown was right."""

    threshold: float
    right: float  # share of the first labels shown that are right, in the worst of the sets
    shown: float  # share of the pictures that have any
    stricter: tuple[tuple[float, float], ...] = ()  # other thresholds, and what is right there

    def with_right(self, share: float) -> "LabelSigns | None":
        """Return the lowest threshold that was measured to be right so often; None: none was."""
        known = ((self.threshold, self.right), *self.stricter)
        enough = [(threshold, right) for threshold, right in known if right >= share]
        return replace(self, threshold=min(enough)[0], right=min(enough)[1]) if enough else None

    @property
    def are_shown(self) -> bool:
        """Whether labels were measured to be right often enough to be shown at all."""
        return self.right >= LEAST_RIGHT


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one model; None for what was not."""

    identity: str  # the SHA-256 of the weights that were measured
    centre: tuple[float, ...]  # mean embedding (d,) of pictures of all kinds, for small libraries
    words: Signs | None = None
    pictures: Signs | None = None  # for queries with pictures, words or none beside them
    labels: LabelSigns | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the members of the file."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Measured":
        """Read the members of the file. Raise ``ValueError`` if they are not sound."""
        try:
            words, pictures, labels = (fields.get(key) for key in ("words", "pictures", "labels"))
            return cls(
                str(fields["identity"]),
                _numbers(fields["centre"]),
                None if words is None else _signs(words),
                None if pictures is None else _signs(pictures),
                None if labels is None else _labels(labels),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as exc:
            raise ValueError(f"a member is missing or of another kind: {exc}") from exc


def measured_in(place: Path, identity: str, dim: int) -> Measured | None:
    """Read the file beside a model's weights; None if it is missing, unsound or of other weights.

    ``place`` is the model's folder or weights file, ``dim`` the width d of its embeddings. What is
    wrong with the file is logged.
    """
    path = (place if place.is_dir() else place.parent) / FILE
    try:
        found = Measured.from_dict(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as exc:
        log.warning("ignoring %s: %s; measure the model again", path, exc)
        return None
    if found.identity != identity or len(found.centre) != dim:
        log.warning("ignoring %s: it was measured for other weights; measure these", path)
        return None
    return found


def _signs(fields: dict[str, Any]) -> Signs:
    weights = _numbers(fields["weights"])
    bias, spread = _numbers([fields["bias"], fields["spread"]])
    if len(weights) != PIECES:
        raise ValueError(f"{len(weights)} weights, not {PIECES}")
    if spread <= 0:
        raise ValueError(f"a spread of {spread} is not positive")
    return Signs(weights, bias, spread, _worth(fields["worth"]))


def _worth(fields: dict[str, Any]) -> Worth:
    told, chance, answers = _numbers([fields[key] for key in ("told", "chance", "answers")])
    if answers < 1 or not (0 <= told <= 1 and 0 <= chance <= 1):
        raise ValueError(f"a worth of {told} of {answers:g} answers is impossible")
    return Worth(told, chance, int(answers))


def _labels(fields: dict[str, Any]) -> LabelSigns:
    threshold, right, shown = _numbers([fields[key] for key in ("threshold", "right", "shown")])
    if not all(0 <= share <= 1 for share in (threshold, right, shown)):
        raise ValueError("a share of labels is not between 0 and 1")
    pairs = [_numbers(pair) for pair in fields.get("stricter", [])]
    if any(len(pair) != 2 or not all(0 <= share <= 1 for share in pair) for pair in pairs):
        raise ValueError("a stricter threshold of labels is not between 0 and 1")
    return LabelSigns(threshold, right, shown, tuple((line, share) for line, share in pairs))


def _numbers(values: list[Any]) -> tuple[float, ...]:
    """Check that these are finite numbers, of JSON. Raise ``TypeError`` or ``ValueError``."""
    if not isinstance(values, list) or any(type(value) not in (int, float) for value in values):
        raise TypeError("not a list of numbers")
    found = tuple(map(float, values))
    if not all(map(math.isfinite, found)):
        raise ValueError("a number is not finite")
    return found
