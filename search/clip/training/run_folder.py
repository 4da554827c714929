"""What a training run leaves in its folder: the last checkpoint and the record of its metrics."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fovea.search.clip.atomic import replace_file
from fovea.search.clip.errors import ModelError


class RunFolder:
    """The folder of the run that ``identity`` tells from others; a run resumes only from its own.

    ``identity`` holds strings, numbers and lists of them.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder, self.identity = folder, dict(identity)
        self.checkpoint = folder / "checkpoint.pt"
        self.metrics = folder / "metrics.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ModelError(f"cannot make the folder {folder}: {exc.strerror}") from exc

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint by ``state`` after ``step`` updates.

        Raise ``ModelError`` where it cannot be written; the one before is whole then.
        """
        saved = {"run": self.identity, "step": step, **state}
        try:
            replace_file(self.checkpoint, lambda file: torch.save(saved, file))
        except ModelError as exc:
            raise ModelError(f"{exc}; {self.last_good()}") from exc

    def load(self) -> dict[str, Any] | None:
        """Return ``step`` and the state of the checkpoint, on the CPU; None where there is none.

        Raise ``ModelError`` for one that is damaged or of another run.
        """
        if not self.checkpoint.is_file():
            return None
        try:
            saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            run = saved.pop("run")
        except PermissionError as exc:
            raise ModelError(f"cannot resume from {self.checkpoint}: {exc.strerror}") from exc
        except Exception as exc:  # a damaged file makes torch raise almost anything
            raise ModelError(
                f"cannot resume from {self.checkpoint}: it is damaged or cut short; delete it to "
                "start anew"
            ) from exc
        if run != self.identity:
            differing = sorted(
                name for name in {*run, *self.identity} if run.get(name) != self.identity.get(name)
            )
            raise ModelError(
                f"{self.checkpoint} belongs to a run with other options ({', '.join(differing)}); "
                "repeat those, or choose another folder with --out"
            )
        return dict(saved)

    def last_good(self, option: str | None = None) -> str:
        """Say, for a run that cannot go on, what is left of it.

        ``option`` is the command's that writes a step of its own choice as a model, if it has one.
        """
        saved = self.load()
        if saved is None:
            return f"no checkpoint had been written to {self.folder} yet"
        left = f"{self.checkpoint} holds the weights of step {saved['step']}"
        if option is None:
            return left
        return f"{left}, which the same command with {option} {saved['step']} writes as a model"

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line of metrics."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as exc:
            raise ModelError(f"cannot write {self.metrics}: {exc.strerror}") from exc

    def rewind(self, step: int) -> None:
        """Take back the lines after ``step``: a run that resumes there will write them again."""
        if not self.metrics.is_file():
            return
        lines = self.metrics.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= step]
        if kept != lines:
            replace_file(self.metrics, lambda file: file.writelines(kept))


def _step_of(line: bytes) -> float:
    """Return the step of a line of metrics; infinite for a line that a kill cut short."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
