"""Models of other families than CLIP, computed by ``transformers``."""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from fovea.search.clip.checkpoints.checkpoint import find_weights, read_tensors, some
from fovea.search.clip.checkpoints.families import FAMILIES, FamilyModel, check_usable
from fovea.search.clip.checkpoints.image_processor import read_json
from fovea.search.clip.errors import ModelError
from fovea.search.clip.patches import unpacked

from .base import DTYPES, TEXT_BATCH, TorchEncoder, Tower
from .towers import FromBytes

__all__ = ["TransformersEncoder"]

CPU_BATCH, GPU_BATCH = 16, 128  # images in one pass
OFFSET_TEXT_TOWERS = ("camembert", "roberta", "xlm-roberta")  # positions count from the pad id on
_GENERIC_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")


class TransformersEncoder(TorchEncoder):
    """A model of ``transformers`` on one device, in one precision. Safe to share in threads."""

    def __init__(
        self, path: Path, found: FamilyModel, *, name: str, device: torch.device, dtype: torch.dtype
    ) -> None:
        weights = find_weights(path)
        check_usable(found.kind, weights.parent)
        super().__init__(
            weights, found.dim, found.preprocess, name=name, device=device, dtype=dtype
        )
        self._kind, self._family = found.kind, FAMILIES[found.kind]

    @property
    def batch_size(self) -> int:
        return CPU_BATCH if self.device.type == "cpu" else GPU_BATCH

    @cached_property
    def logit_scale(self) -> float:
        return math.exp(float(read_tensors(self._weights, ["logit_scale"])["logit_scale"]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        out = np.empty((len(texts), self.dim), np.float32)
        with self._lock, torch.inference_mode():
            for start in range(0, len(texts), TEXT_BATCH):
                part = list(texts[start : start + TEXT_BATCH])
                found = _features(self._model.get_text_features(**self._tokens(part)))
                out[start : start + len(part)] = normalize(found.float(), dim=-1).cpu().numpy()
        return out

    def _tokens(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Tokenise texts; keep those of the tokenizer's outputs that the text tower takes."""
        tokens = self._tokenizer(
            texts,
            padding="max_length" if self._family.pads_texts else True,
            truncation=True,
            max_length=self._context,
            return_tensors="pt",
        )
        taken = inspect.signature(self._model.get_text_features).parameters
        return {name: row.to(self.device) for name, row in tokens.items() if name in taken}

    @cached_property
    def _image_tower(self) -> Tower:
        return self._tower(self._model, self.dtype)

    def _tower_in(self, precision: str) -> Tower:
        dtype = DTYPES[precision]
        return self._image_tower if dtype == self.dtype else self._tower(self._loaded(dtype), dtype)

    def _module(self) -> Callable[[], torch.nn.Module] | None:
        preprocess = self.preprocess
        if preprocess.fit == "patches":  # which are cut in NumPy
            return None

        def made() -> torch.nn.Module:
            exact = self.dtype == torch.float32
            model = self._model if exact else self._loaded(torch.float32)
            return FromBytes(_Images(model), preprocess.mean, preprocess.std).eval()

        return made

    def _tower(self, model: Any, dtype: torch.dtype) -> Tower:
        preprocess = self.preprocess
        mean = torch.tensor(preprocess.mean, device=self.device)
        std = torch.tensor(preprocess.std, device=self.device)

        def embed(pixels: torch.Tensor) -> torch.Tensor:
            x = ((pixels.float() / 255 - mean) / std).to(dtype)  # (n, s, s, 3)
            return _features(model.get_image_features(pixel_values=x.permute(0, 3, 1, 2)))

        def embed_patches(pixels: torch.Tensor) -> torch.Tensor:
            cut, shapes = unpacked(pixels.cpu().numpy(), preprocess.patch, preprocess.patches)
            x = torch.from_numpy(cut).to(self.device).float() / 255  # (n, patches, p * p * 3)
            x = (x - mean.repeat(preprocess.patch**2)) / std.repeat(preprocess.patch**2)
            mask = torch.arange(preprocess.patches) < torch.from_numpy(shapes).prod(1)[:, None]
            mask = mask.to(self.device)
            return _features(
                model.get_image_features(
                    pixel_values=(x * mask[..., None]).to(dtype),
                    pixel_attention_mask=mask.to(torch.int32),
                    spatial_shapes=torch.from_numpy(shapes).to(self.device),
                )
            )

        return embed_patches if preprocess.fit == "patches" else embed

    @cached_property
    def _context(self) -> int:
        """The number of tokens that a text may have."""
        text = self._model.config.text_config
        positions = int(getattr(text, "max_position_embeddings", 0) or 512)
        if self._family.offsets_positions or text.model_type in OFFSET_TEXT_TOWERS:
            positions -= int(text.pad_token_id or 0) + 1
        return min(positions, int(min(self._tokenizer.model_max_length, positions)))

    @cached_property
    def _model(self) -> Any:
        return self._loaded(self.dtype)

    def _loaded(self, dtype: torch.dtype) -> Any:
        folder = self._weights.parent
        with _quiet() as library:
            model_class = getattr(library, self._family.model, None)
            if model_class is None:
                raise ModelError(
                    f"{folder.name} is a {self._kind}, which transformers {library.__version__} "
                    "does not have: pip install -U transformers"
                )
            model, report = _translated(
                folder,
                lambda: model_class.from_pretrained(
                    folder,
                    dtype=dtype,
                    use_safetensors=True,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                ),
            )
        missing = sorted(n for n in report["missing_keys"] if not n.endswith("position_ids"))
        if missing:  # transformers has filled the gaps at random
            raise ModelError(f"{self._weights} lacks {some(missing)}; it is damaged")
        for stored in (*model.parameters(), *model.buffers()):
            stored.data = stored.data.clone()  # not in the mapped file, which may be rewritten
        return model.eval().to(self.device)

    @cached_property
    def _tokenizer(self) -> Any:
        folder = self._weights.parent
        with _quiet() as library:
            generic = _has_generic_tokenizer(folder)
            tokenizer = library.PreTrainedTokenizerFast if generic else library.AutoTokenizer
            options = {"local_files_only": True, "trust_remote_code": False}
            return _translated(folder, lambda: tokenizer.from_pretrained(folder, **options))


class _Images(torch.nn.Module):
    """The image tower of a model of ``transformers``, from normalised pixels to features."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed normalised pixels (n, 3, s, s) as (n, d)."""
        return _features(self.model.get_image_features(pixel_values=pixels))


def _has_generic_tokenizer(folder: Path) -> bool:
    """Whether tokenizer.json alone defines the tokenizer.

    ``AutoTokenizer`` would choose the class by the model instead.
    """
    file = folder / "tokenizer_config.json"
    name = read_json(file).get("tokenizer_class") if file.is_file() else None
    return name in _GENERIC_TOKENIZERS and (folder / "tokenizer.json").is_file()


def _features(found: Any) -> torch.Tensor:
    """Return the features (n, d); newer versions of ``transformers`` wrap them."""
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def _translated(folder: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as exc:  # of many types, depending on what is damaged or missing
        lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
        reason = (lines or [type(exc).__name__])[0][:160]
        needs_extra = isinstance(exc, ImportError)
        step = "pip install 'fovea[transformers]'" if needs_extra else "fetch it again"
        raise ModelError(f"transformers cannot load {folder} ({reason}); {step}") from exc


@contextlib.contextmanager
def _quiet() -> Iterator[Any]:
    """Import ``transformers`` and keep it from reporting on standard error while it loads."""
    import transformers

    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
