"""``fovea train``."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .options import DEVICES, DTYPES, FILE, Command, value_option
from .output import talk
from .progress import download_bar, features_bar, training_bar


def data_options(*, required: bool, images: str) -> Callable[[Command], Command]:
    """Add the options that name images with their captions or labels."""
    options = (
        # --images takes several at once: click sees those after the first as arguments
        click.argument("more", nargs=-1, metavar="[FOLDER|TAR]...", type=FILE),
        click.option(
            "--captions", metavar="FILE", type=FILE, help="JSON Lines or TSV: file, captions."
        ),
        click.option("--labels", metavar="FILE", type=FILE, help="JSON Lines: file, label."),
        click.option("--classes", metavar="FILE", type=FILE, help="JSON: label, names."),
        click.option(
            "--images",
            metavar="FOLDER|TAR",
            multiple=True,
            required=required,
            type=FILE,
            help=images,
        ),
        click.option("--split", metavar="NAME", help="Only lines of this split.  [default: all]"),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def train_option(
    name: str, kind: click.ParamType | type | None, text: str, metavar: str | None, default: object
) -> Callable[[Command], Command]:
    """Add a training option without a default value, so that a recipe may set it."""
    return click.option(name, type=kind, metavar=metavar, help=f"{text}  [default: {default}]")


@click.command()
@click.option("--out", metavar="DIR", required=True, type=FILE, help="Folder of the run.")
@click.option("--recipe", metavar="FILE.toml", type=FILE, help="Read options and data from a file.")
@value_option(
    "--data", "Folder that the recipe's paths are relative to.  [default: its folder]", "DIR", FILE
)
@data_options(required=False, images="Images; repeatable. Alone: WebDataset shards.")
@click.option("--init", "initial", metavar="NAME|DIR", help="Fine-tune this model.")
@train_option("--image-tower", None, "Start from this pretrained part.", "PART|DIR", "none")
@train_option("--text-tower", None, "Start from this pretrained part.", "PART|DIR", "none")
@train_option("--tune", None, "What to train: all, or the last N blocks.", "all|N", "all")
@train_option("--tune-image", None, "--tune for the image tower; 0 locks it.", "all|N", "--tune")
@train_option("--tune-text", None, "--tune for the text tower; 0 locks it.", "all|N", "--tune")
@train_option(
    "--image-size", click.IntRange(min=8), "Side of the input in pixels.", "N", "the model's, or 64"
)
@train_option(
    "--batch-size", click.IntRange(min=2), "Pairs per step, over all processes.", "N", 256
)
@train_option("--accumulate", click.IntRange(min=1), "Compute a batch in N slices.", "N", 1)
@train_option("--samples", click.IntRange(min=1), "Pairs to see in total.", "N", 1_000_000)
@train_option("--lr", float, "Highest learning rate.", "X", 0.001)
@train_option("--image-lr", float, "--lr for the image tower's own layers.", "X", "--lr")
@train_option("--text-lr", float, "--lr for the text tower's own layers.", "X", "--lr")
@train_option(
    "--views",
    click.IntRange(min=0),
    "Keep locked layers' features of N views of each image.",
    "N",
    "0, new views in each step",
)
@train_option("--features", FILE, "Folder to keep them in.", "DIR", "that of --out, features")
@click.option(
    "--class-names",
    is_flag=True,
    default=None,
    help="Give the image head the names of the classes that its part's classifier sees.",
)
@train_option("--hidden", click.IntRange(min=0), "Width of the image head's hidden layer.", "N", 0)
@train_option("--queries", click.IntRange(min=0), "Queries of the head's attention.", "N", 0)
@train_option("--distil", click.FloatRange(min=0), "Weight of the classifier's judgement.", "X", 0)
@train_option("--virtual", click.FloatRange(min=0), "Weight of virtual images.", "X", 0)
@train_option(
    "--average", click.FloatRange(0, 1, max_open=True), "Decay of the weights' average.", "X", 0
)
@train_option("--weight-decay", float, "Weight decay of matrices.", "X", 0.1)
@train_option("--muon", float, "Highest rate of Muon, for hidden matrices.", "X", "0, AdamW only")
@train_option("--warmup", click.FloatRange(0, 1), "Share of the steps that warm up.", "X", 0.05)
@train_option("--stop-after", click.IntRange(min=1), "Stop early, at this step.", "N", "the last")
@train_option("--seed", int, "Random seed.", "N", 0)
@train_option("--workers", click.IntRange(min=1), "Threads that decode.", "N", 2)
@train_option("--log-every", click.IntRange(min=1), "Steps between lines of metrics.", "N", 20)
@train_option("--save-every", click.IntRange(min=1), "Steps between checkpoints.", "N", 200)
@train_option("--device", None, f"Where to run: {DEVICES}", "D", "auto")
@train_option("--dtype", click.Choice(DTYPES[:3]), "Precision of matrix products.", None, "auto")
@train_option("--measure-every", click.IntRange(min=1), "Steps between measurements.", "N", 1000)
@click.option(
    "--plot", is_flag=True, help="Draw DIR/metrics.png after training; without data, draw it now."
)
def train(
    out: Path,
    recipe: Path | None,
    data: Path | None,
    captions: Path | None,
    labels: Path | None,
    classes: Path | None,
    images: tuple[Path, ...],
    more: tuple[Path, ...],
    split: str | None,
    initial: str | None,
    plot: bool,
    **options: Any,
) -> None:
    """Train or fine-tune a CLIP on images and captions.

    Prints a line of metrics, as JSON, every --log-every steps. Repeat the command to resume a
    stopped run from its last checkpoint. The model is written to DIR/model. Options that are not
    given come from the recipe, then from their defaults. On several GPUs: torchrun
    --nproc-per-node N -m fovea train ...

    \b
    fovea train --out runs/mine --captions captions.jsonl --images photos.tar
    fovea train --out runs/lit --captions captions.jsonl --images photos.tar \\
        --image-tower efficientnet-lite0 --text-tower all-minilm-l6 --class-names --tune 2
    fovea train --out runs/mine --plot
    """
    images += more
    if recipe is None and not images:
        if not plot:
            raise click.UsageError("there is no data; give --images, or a --recipe with sources")
        return _draw_run(out)
    from fovea.search.clip.datasets.pairs import PairSource
    from fovea.search.clip.training.recipe import TrainOptions, read_recipe
    from fovea.search.clip.training.train import train as run
    from fovea.search.models.resolve import resolve_model

    chosen = {name: value for name, value in options.items() if value is not None}
    if images:
        chosen["sources"] = (PairSource(images, captions, labels, classes, split),)
    if initial is not None:
        chosen["init"] = resolve_model(initial, progress=download_bar).folder
    if recipe is not None:
        run_options = read_recipe(recipe, folder=data, out=out, **chosen)
    else:
        run_options = TrainOptions(out=out, **chosen)
    leads = os.environ.get("RANK", "0") == "0"  # among the processes of torchrun
    with training_bar(run_options.steps, shown=leads) as on_metrics:
        model = run(run_options, on_metrics, features_bar())
    if leads:
        talk(f"model saved to {model}")
        if plot:
            _draw_run(out)


def _draw_run(out: Path) -> None:
    from fovea.search.clip.training.plot import draw_run

    draw_run(out / "metrics.jsonl", out / "metrics.png")
    talk(f"training curves saved to {out / 'metrics.png'}")
