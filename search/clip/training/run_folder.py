"""The folder of a training run: its last checkpoint and its metrics."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fovea.search.clip.disk import reason_of, replace_file
from fovea.search.clip.errors import ModelError


class RunFolder:
    """The folder of one run, which resumes only from a checkpoint of the same ``identity``.

    ``identity`` holds strings, numbers and lists of them. ``completed`` adds what an earlier
    checkpoint's identity does not say, since fovea could not do it then.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        completed: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        self.folder, self.identity, self._completed = folder, dict(identity), completed
        self.checkpoint = folder / "checkpoint.pt"
        self.metrics = folder / "metrics.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            reason = reason_of(exc, folder)
            raise ModelError(f"cannot make the folder {folder}: {reason}") from exc

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint by ``state`` after ``step`` updates.

        Raise ``ModelError`` if it cannot be written; the previous one is then unchanged.
        """
        saved = {"run": self.identity, "step": step, **state}
        try:
            replace_file(self.checkpoint, lambda file: torch.save(saved, file))
        except ModelError as exc:
            raise ModelError(f"{exc}; {self.last_good()}") from exc

    def load(self) -> dict[str, Any] | None:
        """Return the checkpoint's ``step`` and state, on the CPU, or None if there is none.

        Raise ``ModelError`` if it is damaged or belongs to another run.
        """
        if not self.checkpoint.is_file():
            return None
        try:
            saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            run = self._completed(saved.pop("run"))
        except PermissionError as exc:
            raise ModelError(f"cannot resume from {self.checkpoint}: {exc.strerror}") from exc
        except Exception as exc:  # a damaged file makes torch raise almost anything
            raise ModelError(
                f"cannot resume from {self.checkpoint}: it is damaged or incomplete; delete it "
                "to start again"
            ) from exc
        if run != self.identity:
            differing = sorted(
                name for name in {*run, *self.identity} if run.get(name) != self.identity.get(name)
            )
            raise ModelError(
                f"{self.checkpoint} belongs to a run with other options ({', '.join(differing)}); "
                "use those, or choose another folder with --out"
            )
        return dict(saved)

    def last_good(self, option: str | None = None) -> str:
        """Describe, for an error message, the checkpoint that a failed run leaves behind.

        ``option`` is the command's option to stop at a given step and write the model, if any.
        """
        saved = self.load()
        if saved is None:
            return f"no checkpoint has been written to {self.folder} yet"
        left = f"{self.checkpoint} has the weights of step {saved['step']}"
        if option is None:
            return left
        return f"{left}; to write them as a model, repeat the command with {option} {saved['step']}"

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line of metrics."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as exc:
            reason = reason_of(exc, self.folder)
            raise ModelError(f"cannot write {self.metrics}: {reason}") from exc

    def rewind(self, step: int) -> None:
        """Remove the lines after ``step``; a run that resumes there writes them again."""
        if not self.metrics.is_file():
            return
        lines = self.metrics.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= step]
        if kept != lines:
            replace_file(self.metrics, lambda file: file.writelines(kept))


def _step_of(line: bytes) -> float:
    """Return the step of a line of metrics; infinite for an incomplete line."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
