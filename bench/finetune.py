"""Measure what fine-tuning on a few pairs teaches a model about a new subject, and what it costs.

    fovea train --recipe bench/without-part.toml --data FOLDER --out runs/without
    python bench/finetune.py --data FOLDER --model runs/without/model [--pairs 200] [--part snow]

The model was trained without photographs that have "snow" in a caption, and without 20 classes. A
library is made of some of those pictures, each with one caption, and of others without a caption,
as a user's would be; ``fovea finetune`` learns from it. Both models are then evaluated on pictures
that neither has seen, of the new subject and of everything else.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from fovea.indexer.learning.finetune import Tuned, finetune_library
from fovea.indexer.learning.training_set import Wanted
from fovea.indexer.scanning.scan import index_folders
from fovea.search.clip.datasets.captions import finder
from fovea.search.clip.datasets.pairs import Pair, PairSet, PairSource, open_pairs
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.clip.evaluation.evaluate import class_rows, embed_images
from fovea.search.clip.finetuning.finetune import TuneOptions
from fovea.search.clip.protocols import ImageTextEncoder
from fovea.search.clip.training.recipe import read_recipe
from fovea.search.library.library import Library
from fovea.search.models.resolve import resolve_model

RECIPE = Path(__file__).with_name("without-part.toml")
SNOW = finder(["snow*"])


@dataclass(frozen=True)
class Data:
    """The captioned and the labelled pictures, for training and for evaluation."""

    captioned: PairSet
    captioned_dev: PairSet
    labelled: PairSet
    labelled_val: PairSet
    strange: frozenset[int]  # the classes that the model was trained without


def main() -> None:
    """Print one table per part."""
    options = arguments()
    data = open_data(options.data)
    for part in options.part:
        with tempfile.TemporaryDirectory() as place:
            demonstrate(part, data, options, Path(place))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the recipe's files")
    parser.add_argument("--model", type=Path, required=True, help="model trained without the part")
    parser.add_argument(
        "--part", nargs="+", choices=("snow", "classes"), default=["snow", "classes"]
    )
    parser.add_argument("--pairs", type=int, default=200, help="captioned pictures to learn from")
    parser.add_argument(
        "--others", type=int, default=1000, help="pictures without a caption among them"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that decode")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    usual = TuneOptions()
    for name in ("tune", "epochs", "batch_size", "lr", "keep", "seed"):
        kind = float if name == "lr" else type(getattr(usual, name))
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=getattr(usual, name))
    return parser.parse_args()


def open_data(folder: Path) -> Data:
    """Open the recipe's sources without their exclusions, and their held-out splits."""
    captioned, labelled = read_recipe(RECIPE, folder=folder, out=folder).sources
    named = finder(labelled.exclude)
    whole = [replace(source, exclude=()) for source in (captioned, labelled)]
    val = PairSource(
        (folder / "tinyimagenet-val.tar.gz",), None, labelled.labels, labelled.classes, "val"
    )
    train = open_pairs(whole[1])
    strange = {
        label
        for label, names in train.class_names.items()
        if any(named.search(name) for name in names)
    }
    return Data(
        captioned=open_pairs(whole[0]),
        captioned_dev=open_pairs(replace(whole[0], split="dev")),
        labelled=train,
        labelled_val=open_pairs(val),
        strange=frozenset(strange),
    )


def demonstrate(part: str, data: Data, options: argparse.Namespace, place: Path) -> None:
    """Fine-tune on one part and print what changes."""
    tuned, seconds = tune(part, data, options, place)
    before = load_encoder(options.model, device=options.device)
    after = load_encoder(tuned.folder, device=options.device)
    first, now = measure(before, data), measure(after, data)
    found = tuned.comparison
    learned = tuned.pictures - found.after.pictures
    print(
        f"{part}: learned from {learned} pictures with a caption each in {seconds:.0f} s, "
        f"{found.after.pictures} held out: mean recall {found.before.mean:.1%}, now "
        f"{found.after.mean:.1%}; agreement {found.agreement:.3f}; "
        f"{tuned.refusal or 'not refused'}"
    )
    print(f"{'':44}  before   after")
    for name, value in first.items():
        print(f"{name:44}  {value:6.1%}  {now[name]:6.1%}")
    print()


def tune(part: str, data: Data, options: argparse.Namespace, place: Path) -> tuple[Tuned, float]:
    """Make a library of the part's pictures and fine-tune the model on it; say how long it took."""
    photographs = place / "photographs"
    photographs.mkdir()
    lines = list(write_pictures(part, data, options, photographs))
    captions = place / "captions.jsonl"
    captions.write_text("\n".join(map(json.dumps, lines)))
    model = resolve_model(str(options.model))
    with Library.open(place / "library", create=True) as library:
        index_folders(
            library,
            [photographs],
            model=model,
            load_encoder=lambda: model.load(device=options.device),
            workers=options.workers,
        )
        names = ("tune", "epochs", "batch_size", "lr", "keep", "seed", "device")
        started = time.perf_counter()
        tuned = finetune_library(
            library,
            model,
            wanted=Wanted(captions=captions, words=()),
            options=TuneOptions(**{name: getattr(options, name) for name in names}),
            workers=options.workers,
        )
    return tuned, time.perf_counter() - started


def write_pictures(
    part: str, data: Data, options: argparse.Namespace, folder: Path
) -> Iterator[dict[str, str]]:
    """Write the library's pictures and yield a line of captions for those of the part.

    A fifth of the pictures with a caption will be held out, so there are as many more of them.
    """
    rng = np.random.default_rng(options.seed)
    wanted = round(options.pairs / (1 - Wanted().held_out))
    pairs = data.captioned if part == "snow" else data.labelled
    chosen: list[tuple[Pair, str]] = []
    others: list[Pair] = []
    for number in rng.permutation(len(pairs.pairs)):
        pair = pairs.pairs[int(number)]
        caption = strange_caption(pair, data)
        if caption and len(chosen) < wanted:
            chosen.append((pair, caption))
        elif not caption and len(others) < options.others:
            others.append(pair)
    for pair, caption in chosen:
        write(pairs, pair, folder)
        yield {"file": Path(pair.file).name, "caption": caption}
    for pair in others:
        write(pairs, pair, folder)


def strange_caption(pair: Pair, data: Data) -> str | None:
    """Return a caption if the model was trained without this picture, else None."""
    if pair.label >= 0:
        names = data.labelled.class_names[pair.label]
        return f"a photo of a {names[0]}." if pair.label in data.strange else None
    return next((text for text in pair.captions if SNOW.search(text)), None)


def write(pairs: PairSet, pair: Pair, folder: Path) -> None:
    """Write one picture into a folder."""
    (folder / Path(pair.file).name).write_bytes(pairs.read(pair))


def measure(encoder: ImageTextEncoder, data: Data) -> dict[str, float]:
    """Return recall on the parts that training left out, and on the rest."""
    return {**measure_captions(encoder, data), **measure_classes(encoder, data)}


def measure_captions(encoder: ImageTextEncoder, data: Data) -> dict[str, float]:
    """Rank all held-out photographs for each of their captions."""
    pairs, images = embed_images(encoder, data.captioned_dev)
    texts = [text for pair in pairs for text in pair.captions]
    owner = np.repeat(np.arange(len(pairs)), [len(pair.captions) for pair in pairs])
    scores = encoder.encode_texts(texts) @ images.T  # (m, n)
    ranks = (scores > scores[np.arange(len(texts)), owner][:, None]).sum(axis=1)
    snowy = np.array([bool(SNOW.search(text)) for text in texts])
    return {
        f"captions {name}: recall@{k}": float((ranks[which] < k).mean())
        for name, which in (("with snow", snowy), ("without", ~snowy))
        for k in (1, 5, 10)
    }


def measure_classes(encoder: ImageTextEncoder, data: Data) -> dict[str, float]:
    """Rank all classes for each held-out picture, and all pictures for each class."""
    pairs, images = embed_images(encoder, data.labelled_val)
    numbers = sorted(data.labelled_val.class_names)
    rows = class_rows(encoder, [data.labelled_val.class_names[number] for number in numbers])
    right = np.array([numbers.index(pair.label) for pair in pairs])
    scores = images @ rows.T  # (n, c)
    ranks = (scores > scores[np.arange(len(pairs)), right][:, None]).sum(axis=1)
    strange = np.array([pair.label in data.strange for pair in pairs])
    found = {
        f"pictures of {name}: class among the first {k}": float((ranks[which] < k).mean())
        for name, which in (("the 20 classes", strange), ("the others", ~strange))
        for k in (1, 5, 10)
    }
    best = np.argsort(-scores, axis=0)[:10]  # (10, c)
    hits = (right[best] == np.arange(len(numbers))).mean(axis=0)
    new = np.array([number in data.strange for number in numbers])
    found["the 20 classes: right of the first 10 pictures"] = float(hits[new].mean())
    found["the other classes: right of the first 10"] = float(hits[~new].mean())
    return found


if __name__ == "__main__":
    main()
