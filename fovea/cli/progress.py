"""Progress bars on standard error."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm

    from fovea.indexer.analysing.analyse import AnalysisProgress
    from fovea.indexer.scanning.pipeline import Progress
    from fovea.indexer.switching.switch import SwitchProgress
    from fovea.search.clip.training.train import Metrics
    from fovea.search.mapping.build import MapProgress


from .output import print_json, talk


def _bar(**options: Any) -> "tqdm[NoReturn]":
    """Open a bar on standard error, where that is a terminal."""
    from tqdm import tqdm

    return tqdm(**{"disable": None, "leave": False} | options)


@contextlib.contextmanager
def scan_bar(dry_run: bool) -> "Iterator[Callable[[Progress], None]]":
    name = "scanning" if dry_run else "indexing"
    with _bar(desc=name, unit=" files", smoothing=0.1) as bar:

        def show(progress: "Progress") -> None:
            bar.total = None if progress.walking else progress.found
            bar.n = progress.done
            failed = f", {progress.failed} failed" if progress.failed else ""
            bar.set_postfix_str(f"{progress.rate:.1f} img/s{failed}", refresh=False)
            bar.refresh()

        yield show


@contextlib.contextmanager
def analysis_bar() -> "Iterator[Callable[[AnalysisProgress], None]]":
    with _bar(unit=" pictures", smoothing=0.1) as bar:

        def show(progress: "AnalysisProgress") -> None:
            bar.set_description(progress.said, refresh=False)
            bar.total, bar.n = max(progress.total, progress.done), progress.done
            failed = f", {progress.failed} failed" if progress.failed else ""
            bar.set_postfix_str(f"{progress.rate:.1f} img/s{failed}", refresh=False)
            bar.refresh()

        yield show


@contextlib.contextmanager
def map_bar() -> "Iterator[Callable[[MapProgress], None]]":
    with _bar(unit=" pictures") as bar:

        def show(progress: "MapProgress") -> None:
            bar.set_description(progress.step, refresh=False)
            bar.total, bar.n = progress.total or None, progress.done
            bar.refresh()

        yield show


@contextlib.contextmanager
def switch_bar() -> "Iterator[Callable[[SwitchProgress], None]]":
    waits: list[str] = []
    with _bar(desc="embedding", unit=" pictures") as bar:

        def show(progress: "SwitchProgress") -> None:
            bar.total, bar.n = progress.images, progress.embedded
            bar.set_postfix_str(f"{progress.rate:.1f} img/s", refresh=False)
            bar.refresh()
            if progress.waiting and progress.waiting not in waits:
                waits.append(progress.waiting)
                talk(f"everything is embedded, but {progress.waiting}")

        yield show


@contextlib.contextmanager
def bytes_bar(name: str) -> "Iterator[Callable[[int, int], None]]":
    with _bar(desc=name, unit="B", unit_scale=True, unit_divisor=1024) as bar:

        def show(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        yield show


@contextlib.contextmanager
def rows_bar() -> "Iterator[Callable[[str, int], None]]":
    with _bar(unit=" rows") as bar:

        def show(table: str, rows: int) -> None:
            bar.set_description(table, refresh=False)
            bar.n = rows
            bar.refresh()

        yield show


def download_bar(name: str) -> "Callable[[int, int | None], None]":
    talk(f"downloading {name}")
    bar = _bar(unit="B", unit_scale=True, unit_divisor=1024, leave=True, desc=name)

    def show(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return show


@contextlib.contextmanager
def counting_bar(unit: str) -> "Iterator[Callable[[int, int], None]]":
    with _bar(unit=unit) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


@contextlib.contextmanager
def training_bar(steps: int, *, shown: bool) -> "Iterator[Callable[[Metrics], None]]":
    from dataclasses import asdict

    with _bar(total=steps, unit="step", leave=True, disable=None if shown else True) as bar:

        def show(metrics: "Metrics") -> None:
            print_json(asdict(metrics))
            bar.set_postfix_str(f"loss {metrics.loss:.3f}", refresh=False)
            bar.update(metrics.step - bar.n)

        yield show


def features_bar() -> "Callable[[int, int], None]":
    bars: list[tqdm[NoReturn]] = []

    def show(done: int, total: int) -> None:
        bar = bars[0] if bars else _bar(total=total, desc="features", unit=" images")
        bars[:] = [bar]
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return show


@contextlib.contextmanager
def tuning_bar() -> "Iterator[Callable[[Metrics], None]]":
    with _bar(unit="step") as bar:

        def show(metrics: "Metrics") -> None:
            bar.total = metrics.steps
            recall = metrics.held_out.get("held out: recall@10", 0.0)
            text = f"loss {metrics.loss:.3f}, held out recall@10 {recall:.3f}"
            bar.set_postfix_str(text, refresh=False)
            bar.update(metrics.step - bar.n)

        yield show
