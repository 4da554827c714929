"""Fine-tune a model on the words of a library's own pictures, and judge whether it got better."""

import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fovea.search.clip.checkpoints.checkpoint import load_clip
from fovea.search.clip.checkpoints.export import save_model
from fovea.search.clip.disk import replace_file
from fovea.search.clip.encoders.base import keep_allocations
from fovea.search.clip.finetuning.features import FeatureStore, LowerHalf
from fovea.search.clip.finetuning.finetune import Comparison, TuneOptions, finetune, fingerprint
from fovea.search.clip.protocols import TextTokenizer
from fovea.search.clip.tokenizer import open_tokenizer
from fovea.search.clip.training.train import Metrics
from fovea.search.library.library import Library
from fovea.search.models.info import ModelInfo
from fovea.search.query.likelihood import default_labels

from .training_set import Wanted, gather

LEAST_AGREEMENT = 0.8  # of a tuned model with what it was, see ``Comparison.agreement``
FIGURES = "finetuned.json"  # in the tuned model's folder


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned model and how it compares with the one before.

    ``refusal`` says why it should not be used, None for one that got better. ``left_out`` counts
    the pictures that could not be read, by reason.
    """

    folder: Path
    pictures: int
    captions: int
    left_out: dict[str, int]
    comparison: Comparison
    refusal: str | None

    def to_dict(self) -> dict[str, object]:
        """Return the figures, as members of a JSON document."""
        counts = {"pictures": self.pictures, "captions": self.captions, "left_out": self.left_out}
        return {**counts, **self.comparison.to_dict(), "refusal": self.refusal}


def finetune_library(
    library: Library,
    model: ModelInfo,
    *,
    wanted: Wanted,
    options: TuneOptions,
    out: Path | None = None,
    workers: int | None = None,
    least_agreement: float = LEAST_AGREEMENT,
    labels: Sequence[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_metrics: Callable[[Metrics], None] | None = None,
) -> Tuned:
    """Tune the last blocks of ``model`` to the library's pictures and their captions.

    Everything is kept below ``out``, by default the folder ``tuned`` of the library: the features
    of the pictures, the run, and the new model in a folder of its own name, or below ``refused`` if
    it got worse. The original model is not changed. A killed run resumes when the call is repeated.
    Raise ``FoveaError`` if there is too little to learn from, and for all that
    ``fovea.search.clip.finetuning.finetune.finetune`` raises.
    """
    if out is None:
        library.check_writable()
    keep_allocations()
    place = library.folder / "tuned" if out is None else out
    clip = load_clip(model.folder)
    folder, tower = model.folder, clip.config.text
    tokenizer: TextTokenizer = open_tokenizer(
        folder if folder.is_dir() else folder.parent, tower.tokenizer, tower.vocab_size
    )
    lower = LowerHalf(clip, options.tune, device=options.device, dtype=options.dtype)
    settings = [model.identity, options.tune, lower.side, wanted.views, wanted.words]
    settings += [str(lower.dtype), str(lower.device)]
    store = FeatureStore(place / "features", settings)
    labels = default_labels() if labels is None else labels
    found = gather(library, wanted, lower, store, labels, workers=workers, progress=on_progress)
    mark = [model.identity, fingerprint(found.material), _lasting(options)]
    name = f"{_base(model.name)}-tuned-{zlib.crc32(json.dumps(mark).encode()):08x}"
    comparison = finetune(
        clip, tokenizer, found.material, options, place / "runs" / name, on_metrics
    )
    refusal = refused(comparison, least_agreement)
    folder = (place / "refused" if refusal else place) / name
    tuned = Tuned(folder, found.pictures, found.captions, dict(found.left_out), comparison, refusal)
    save_model(clip, tokenizer, folder)
    origin = {"name": model.name, "sha256": model.identity}
    text = json.dumps({"from": origin, **tuned.to_dict()}, indent=2) + "\n"
    replace_file(folder / FIGURES, lambda file: file.write(text.encode()))
    return tuned


def refused(found: Comparison, least_agreement: float) -> str | None:
    """Return why a tuned model should not replace the original; None if it may."""
    before, after = found.before.mean, found.after.mean
    if not after >= before:  # nor if either is NaN
        return (
            f"it finds fewer of the held-out pictures: mean recall went from {before:.1%} to "
            f"{after:.1%}; try more captions, or a lower learning rate"
        )
    if not found.agreement >= least_agreement:
        return (
            "it has forgotten too much: the original's best label is still among the five best for "
            f"{found.agreement:.1%} of {found.general} pictures, less than {least_agreement:.0%}; "
            "give keep a larger value, or train for fewer epochs"
        )
    return None


def _lasting(options: TuneOptions) -> dict[str, object]:
    """Return the options that change the resulting model, not only how it is computed."""
    passing = ("device", "dtype", "log_every", "save_every")
    return {name: value for name, value in asdict(options).items() if name not in passing}


def _base(name: str) -> str:
    """Return a model's name for a folder, without the mark of an earlier tuning."""
    return re.sub(r"[^\w.-]+", "-", name.partition("-tuned-")[0]).strip("-.") or "model"
