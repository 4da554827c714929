"""Models of other families, by way of ``transformers``, behind the methods of any encoder."""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from fovea.search.clip.checkpoints.checkpoint import find_weights, read_tensors
from fovea.search.clip.checkpoints.families import FAMILIES, Family, check_usable
from fovea.search.clip.checkpoints.image_processor import read_json
from fovea.search.clip.errors import ModelError
from fovea.search.clip.patches import unpacked

from .base import TEXT_BATCH, TorchEncoder, Tower

__all__ = ["TransformersEncoder"]

CPU_BATCH, GPU_BATCH = 16, 128  # pictures in one pass
PADDED = ("siglip", "siglip2")  # their text towers were trained with texts of one length
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
OFFSET = ("altclip", "camembert", "roberta", "xlm-roberta")  # count positions from the pad id on


class TransformersEncoder(TorchEncoder):
    """A model of ``transformers`` on one device, in one precision. Safe to share in threads."""

    def __init__(
        self, place: Path, family: Family, *, name: str, device: torch.device, dtype: torch.dtype
    ) -> None:
        weights = find_weights(place)
        check_usable(family.kind, weights.parent)
        super().__init__(
            weights, family.dim, family.preprocess, name=name, device=device, dtype=dtype
        )
        self.family = family

    @property
    def batch_size(self) -> int:
        """How many pictures one pass takes."""
        return CPU_BATCH if self.device.type == "cpu" else GPU_BATCH

    @cached_property
    def logit_scale(self) -> float:
        """The factor of cosines in zero-shot logits."""
        return math.exp(float(read_tensors(self._weights, ["logit_scale"])["logit_scale"]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as float32 unit rows (n, d); what exceeds the context is cut off."""
        out = np.empty((len(texts), self.dim), np.float32)
        with self._lock, torch.inference_mode():
            for start in range(0, len(texts), TEXT_BATCH):
                part = list(texts[start : start + TEXT_BATCH])
                found = _features(self._model.get_text_features(**self._tokens(part)))
                out[start : start + len(part)] = normalize(found.float(), dim=-1).cpu().numpy()
        return out

    def _tokens(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """The ids of the texts, and what else the tokenizer gives that the text tower takes."""
        tokens = self._tokenizer(
            texts,
            padding="max_length" if self.family.kind in PADDED else True,
            truncation=True,
            max_length=self._context,
            return_tensors="pt",
        )
        taken = inspect.signature(self._model.get_text_features).parameters
        return {name: row.to(self.device) for name, row in tokens.items() if name in taken}

    @cached_property
    def _image_tower(self) -> Tower:
        model, preprocess = self._model, self.preprocess
        mean = torch.tensor(preprocess.mean, device=self.device)
        std = torch.tensor(preprocess.std, device=self.device)

        def embed(pixels: torch.Tensor) -> torch.Tensor:
            x = ((pixels.float() / 255 - mean) / std).to(self.dtype)  # (n, s, s, 3)
            return _features(model.get_image_features(pixel_values=x.permute(0, 3, 1, 2)))

        def embed_patches(pixels: torch.Tensor) -> torch.Tensor:
            cut, shapes = unpacked(pixels.cpu().numpy(), preprocess.patch, preprocess.patches)
            x = torch.from_numpy(cut).to(self.device).float() / 255  # (n, patches, p * p * 3)
            x = (x - mean.repeat(preprocess.patch**2)) / std.repeat(preprocess.patch**2)
            mask = torch.arange(preprocess.patches) < torch.from_numpy(shapes).prod(1)[:, None]
            mask = mask.to(self.device)
            return _features(
                model.get_image_features(
                    pixel_values=(x * mask[..., None]).to(self.dtype),
                    pixel_attention_mask=mask.to(torch.int32),
                    spatial_shapes=torch.from_numpy(shapes).to(self.device),
                )
            )

        return embed_patches if preprocess.fit == "patches" else embed

    @cached_property
    def _context(self) -> int:
        """How many tokens a text may have."""
        text = self._model.config.text_config
        positions = int(getattr(text, "max_position_embeddings", 0) or 512)
        if text.model_type in OFFSET or self.family.kind in OFFSET:
            positions -= int(text.pad_token_id or 0) + 1
        return min(positions, int(min(self._tokenizer.model_max_length, positions)))

    @cached_property
    def _model(self) -> Any:
        folder, name = self._weights.parent, FAMILIES[self.family.kind][0]
        with _quiet() as library:
            kind = getattr(library, name, None)
            if kind is None:
                raise ModelError(
                    f"{folder.name} is a {self.family.kind}, which this transformers "
                    f"({library.__version__}) does not know: pip install -U transformers"
                )
            model, told = _translated(
                folder,
                lambda: kind.from_pretrained(
                    folder,
                    dtype=self.dtype,
                    use_safetensors=True,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                ),
            )
        _check_complete(self._weights, told)
        return model.eval().to(self.device)

    @cached_property
    def _tokenizer(self) -> Any:
        folder = self._weights.parent
        with _quiet() as library:
            kind = library.AutoTokenizer
            if _is_generic(folder):
                kind = library.PreTrainedTokenizerFast
            return _translated(
                folder,
                lambda: kind.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                ),
            )


def _is_generic(folder: Path) -> bool:
    """Whether a tokenizer is all that its tokenizer.json says, of whatever class the model's are.

    ``AutoTokenizer`` would go by the model.
    """
    said = folder / "tokenizer_config.json"
    name = read_json(said).get("tokenizer_class") if said.is_file() else None
    return name in _GENERIC and (folder / "tokenizer.json").is_file()


def _features(found: Any) -> torch.Tensor:
    """The features (n, d), which older versions return as they are."""
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def _check_complete(weights: Path, told: Mapping[str, Any]) -> None:
    """Refuse weights that lack a part, which ``transformers`` would draw at random."""
    missing = sorted(name for name in told["missing_keys"] if not name.endswith("position_ids"))
    if missing:
        rest = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(f"{weights} lacks {', '.join(missing[:3])}{rest}; it is damaged")


def _translated(folder: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as exc:  # of many kinds, according to what is damaged or not there
        lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
        reason = (lines or [type(exc).__name__])[0][:160]
        step = "fetch it again"
        if isinstance(exc, ImportError):
            step = "pip install 'fovea[transformers]'"
        raise ModelError(f"transformers cannot load {folder} ({reason}); {step}") from exc


@contextlib.contextmanager
def _quiet() -> Iterator[Any]:
    """Give ``transformers``, which reports on standard error while it loads: not this time."""
    import transformers

    told = transformers.utils.logging
    level, bars = told.get_verbosity(), told.is_progress_bar_enabled()
    told.set_verbosity_error()
    told.disable_progress_bar()
    try:
        yield transformers
    finally:
        told.set_verbosity(level)
        if bars:
            told.enable_progress_bar()
