"""``fovea train``."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    pass


from .options import DEVICES, DTYPES, FILE, Command
from .output import talk
from .progress import download_bar, training_bar

# So that --images takes several at once: what follows the first is an argument to click.
more_images = click.argument("more", nargs=-1, metavar="[FOLDER|TAR]...", type=FILE)


def train_option(
    name: str, kind: click.ParamType | type | None, text: str, metavar: str | None, default: object
) -> Callable[[Command], Command]:
    """Add an option of a training run, which a recipe may set too: no default of its own."""
    return click.option(name, type=kind, metavar=metavar, help=f"{text}  [default: {default}]")


@click.command()
@more_images
@click.option("--out", metavar="DIR", required=True, type=FILE, help="Where the run is kept.")
@click.option("--recipe", metavar="FILE.toml", type=FILE, help="Options and data, as a file.")
@click.option(
    "--data",
    metavar="DIR",
    type=FILE,
    help="What the recipe's paths start from.  [default: its own]",
)
@click.option("--captions", metavar="FILE", type=FILE, help="JSON Lines or TSV: file, captions.")
@click.option("--labels", metavar="FILE", type=FILE, help="JSON Lines: file, label.")
@click.option("--classes", metavar="FILE", type=FILE, help="JSON: label, names.")
@click.option(
    "--images",
    metavar="FOLDER|TAR",
    multiple=True,
    type=FILE,
    help="The images, one or more. Alone: WebDataset shards.",
)
@click.option("--split", metavar="NAME", help="Only lines of this split.  [default: all]")
@click.option("--init", "initial", metavar="NAME|DIR", help="Fine-tune this model.")
@train_option("--tune", None, "What learns: all, or the last N blocks.", "all|N", "all")
@train_option("--image-size", click.IntRange(min=8), "Pixels a side.", "N", "the model's, or 64")
@train_option("--batch-size", click.IntRange(min=2), "Pairs a step, in all processes.", "N", 256)
@train_option("--accumulate", click.IntRange(min=1), "Slices that a batch is cut into.", "N", 1)
@train_option("--samples", click.IntRange(min=1), "Pairs seen in all.", "N", 1_000_000)
@train_option("--lr", float, "The highest learning rate.", "X", 0.001)
@train_option("--weight-decay", float, "Decay of the matrices.", "X", 0.1)
@train_option("--muon", float, "The highest rate of Muon, for hidden matrices.", "X", "0, AdamW")
@train_option("--warmup", click.FloatRange(0, 1), "Share of the steps that rise.", "X", 0.05)
@train_option("--stop-after", click.IntRange(min=1), "End at this step.", "N", "the last")
@train_option("--seed", int, "Of everything that is drawn.", "N", 0)
@train_option("--workers", click.IntRange(min=1), "Threads that decode.", "N", 2)
@train_option("--log-every", click.IntRange(min=1), "Steps a line of metrics.", "N", 20)
@train_option("--save-every", click.IntRange(min=1), "Steps a checkpoint.", "N", 200)
@train_option("--device", None, f"Where to run: {DEVICES}", "D", "auto")
@train_option("--dtype", click.Choice(DTYPES[:3]), "Precision of the products.", None, "auto")
@train_option("--measure-every", click.IntRange(min=1), "Steps a measuring.", "N", 1000)
@click.option(
    "--plot", is_flag=True, help="Draw DIR/metrics.png afterwards, or of a run that is there."
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
    """Train a CLIP, or fine-tune one, on images and captions.

    A line of metrics, JSON, is printed every --log-every steps. A run that was stopped goes on
    from its last checkpoint when the command is repeated. The model is left in DIR/model. An
    option that is not given has the recipe's value, and only then its default. On several GPUs:
    torchrun --nproc-per-node N -m fovea train ...

    \b
    fovea train --out runs/mine --captions captions.jsonl --images photos.tar
    fovea train --out runs/mine --plot
    """
    images += more
    if recipe is None and not images:
        if not plot:
            raise click.UsageError("say what to train on: --images, or a --recipe that does")
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
        todo = read_recipe(recipe, folder=data, out=out, **chosen)
    else:
        todo = TrainOptions(out=out, **chosen)
    leads = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts
    with training_bar(todo.steps, shown=leads) as on_metrics:
        model = run(todo, on_metrics)
    if leads:
        talk(f"the model is in {model}")
        if plot:
            _draw_run(out)


def _draw_run(out: Path) -> None:
    from fovea.search.clip.training.plot import draw_run

    draw_run(out / "metrics.jsonl", out / "metrics.png")
    talk(f"its course is drawn in {out / 'metrics.png'}")
