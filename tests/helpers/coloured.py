"""Captioned squares of plain colours, and a CLIP small enough to learn them in a moment."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from fovea.search.clip.datasets.pairs import PairSource
from fovea.search.clip.training.recipe import TrainOptions

COLOURS = {
    "red": (220, 30, 30),
    "lime": (40, 220, 40),
    "blue": (40, 40, 220),
    "yellow": (230, 220, 40),
    "black": (15, 15, 15),
    "white": (240, 240, 240),
}
VIT = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 32, "heads": 2}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "heads": 2}
TEXT = {"width": 32, "heads": 2, "layers": 1, "context_length": 16}


def encoded(colour, seed=0, kind="PNG"):
    """Return the bytes of a noisy 24 × 20 square of this colour."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(-12, 13, size=(20, 24, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_tar(path, files, mode="w"):
    """Write name → bytes as a tar file."""
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def captioned_source(folder: Path, each: int = 4) -> PairSource:
    """Write a tar of squares with a caption file beside it."""
    files, lines = {}, []
    for colour in COLOURS:
        for seed in range(each):
            name = f"{colour}{seed}.png"
            files[name] = encoded(colour, seed)
            captions = [f"a {colour} square", f"the square is {colour}"]
            split = "train" if seed else "dev"
            lines.append(json.dumps({"file": name, "captions": captions, "split": split}))
    write_tar(folder / "squares.tar", files)
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return PairSource((folder / "squares.tar",), captions=folder / "captions.jsonl")


def labelled_source(folder: Path, each: int = 4) -> PairSource:
    """Write a folder of squares with a file of labels and one of the classes' names beside it."""
    (folder / "labelled").mkdir()
    lines, classes = [], []
    for label, colour in enumerate(COLOURS):
        classes.append({"label": label, "names": [colour, f"{colour} tile"]})
        for seed in range(each):
            (folder / "labelled" / f"{label}-{seed}.png").write_bytes(encoded(colour, seed))
            lines.append(json.dumps({"file": f"{label}-{seed}.png", "label": label}))
    (folder / "labels.jsonl").write_text("\n".join(lines))
    (folder / "classes.json").write_text(json.dumps(classes))
    return PairSource(
        (folder / "labelled",), labels=folder / "labels.jsonl", classes=folder / "classes.json"
    )


def tiny_run(folder: Path, **changes) -> TrainOptions:
    """Return the options of a run of a few steps in float32."""
    options = {
        "out": folder / "run",
        "vision": VIT,
        "text": TEXT,
        "embed_dim": 16,
        "merges": 40,
        "batch_size": 8,
        "samples": 48,
        "lr": 3e-3,
        "warmup": 0.2,
        "dtype": "float32",
        "device": "cpu",
        "workers": 1,
        "log_every": 2,
        "save_every": 2,
    } | changes
    if "init" in options:  # which has a shape of its own
        for name in ("vision", "text", "embed_dim", "merges"):
            options.pop(name)
    if "sources" not in options:
        options["sources"] = (captioned_source(folder),)
    return TrainOptions(**options)


def found(client, query):
    """Return the names of the pictures that a query finds, without their ending."""
    hits = client.get("/api/search", query_string={"q": query, "limit": 100}).json["hits"]
    return {hit["name"].removesuffix(".png") for hit in hits}
