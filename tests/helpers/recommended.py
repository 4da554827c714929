"""A hub on the loopback address with a small model in the place of the recommended one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.models.named_hub import RECOMMENDED
from loopback import serving_hub
from small_clips import MERGES, VIT, random_clip, write_open_clip

FILE = "open_clip_model.safetensors"
WEIGHTS = f"/{RECOMMENDED.hub_id}/{FILE}"
RESOLVED = f"/{RECOMMENDED.hub_id}/resolve/main/{FILE}"


@contextmanager
def serving_recommended(folder: Path, patch) -> Iterator:
    """Serve the model; processes started meanwhile find this hub, and keep models in a folder."""
    write_open_clip(folder / "source", random_clip(VIT, seed=7).state_dict(), VIT)
    Tokenizer(MERGES).save(folder / "source")
    with serving_hub() as served:
        for path in (folder / "source").iterdir():
            served.files[f"/{RECOMMENDED.hub_id}/{path.name}"] = path.read_bytes()
        for name in ("FOVEA_OFFLINE", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
        patch.setenv("HF_ENDPOINT", served.url)
        patch.setenv("HF_HOME", str(folder / "hub"))
        patch.setenv("FOVEA_MODELS", str(folder / "models"))
        patch.setenv("no_proxy", "*")
        yield served


def parts(served) -> list[str | None]:
    """Return the parts of the weights that were asked for."""
    return [part for path, part in served.asked if path == RESOLVED and part]
