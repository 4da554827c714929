"""Analyses: each content once, resumed, whatever single pictures do."""

import contextlib
import threading
from pathlib import Path

import pytest
from PIL import Image

import fovea
from fovea.indexer.analysing import kinds
from fovea.indexer.analysing.accounts import AnalysisState
from fovea.indexer.analysing.analyse import analyse, has_work
from fovea.indexer.analysing.background import Background
from fovea.indexer.decoding.limits import Limits
from fovea.indexer.scanning.verify import verify
from fovea.search.analyses.stored import analysis_counts, is_off, switch
from fovea.search.clip.errors import FoveaError
from fovea.search.errors import LibraryBusy
from fovea.search.library.library import Library
from fovea.search.library.locks import exclusive
from fovea.search.places.stored import place_counts
from toys import COLOURS

MEANS = "CREATE TABLE IF NOT EXISTS means (image_id INTEGER PRIMARY KEY, colour TEXT)"
FORGET = (
    "CREATE TRIGGER IF NOT EXISTS forget AFTER DELETE ON analyses WHEN old.kind = 'mean' "
    "BEGIN DELETE FROM means WHERE image_id = old.image_id; END"
)


@pytest.fixture
def mean(monkeypatch):
    """The stand-in kind, as the only one."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(kinds, "KINDS", {"mean": "stand_in"})
    return kinds.analysis("mean")


@pytest.fixture
def pictures(colour_library, mean):
    for sql in (MEANS, FORGET):
        colour_library.conn.execute(sql)
    return colour_library


def run(library, mean, **options):
    return analyse(library, [mean], workers=2, **options)


def found(library):
    return {colour for (colour,) in library.rows("SELECT colour FROM means")}


def added(library, add_file, tmp_path, name, colour, kind="png"):
    [root] = library.roots()
    path = tmp_path / "photos" / f"{name}.{kind}"
    Image.new("RGB", (20, 20), colour).save(path)
    add_file(library, root.id, path)
    return path


def test_each_content_is_analysed_once_and_accounted_for(pictures, mean):
    told = []
    [one] = run(pictures, mean, progress=told.append).kinds
    assert (one.done, one.failed, one.pending) == (len(COLOURS), 0, 0)
    assert len(found(pictures)) == len(COLOURS)
    assert (told[-1].total, told[-1].done) == (len(COLOURS), len(COLOURS))
    assert not has_work(pictures, [mean])
    [again] = run(pictures, mean).kinds
    assert again.done == 0


def test_a_moved_file_costs_nothing_and_a_new_version_all(pictures, mean, monkeypatch, tmp_path):
    run(pictures, mean)
    path = tmp_path / "photos" / "red.png"
    path.rename(path.with_name("rouge.png"))
    pictures.conn.execute(
        "UPDATE files SET path = ? WHERE path = ?",
        (bytes(path.with_name("rouge.png")), bytes(path)),
    )
    assert run(pictures, mean).kinds[0].done == 0
    monkeypatch.setattr(type(mean), "version", "2")
    assert run(pictures, mean).kinds[0].done == len(COLOURS)
    [(rows,)] = pictures.rows("SELECT count(*) FROM analyses WHERE version = '2'")
    assert rows == len(COLOURS)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SLOW", "too slow: not analysed within 2 seconds"),
        ("DEADLY", "its analysis stopped with exit code 7"),
        ("WRONG", "unexpected error: ValueError: no such colour"),
    ],
)
def test_a_picture_that_breaks_the_analysis_costs_only_itself(
    pictures, mean, add_file, tmp_path, name, said
):
    import stand_in

    path = added(pictures, add_file, tmp_path, "bad", getattr(stand_in, name))
    [one] = run(pictures, mean, limits=Limits(seconds=2.0)).kinds
    assert (one.done, one.failed, one.pending) == (len(COLOURS), 1, 0)
    [(reason,)] = pictures.rows("SELECT reason FROM analyses WHERE reason NOT NULL")
    assert said in reason
    accounts = {file.path: file for file in verify(pictures).files}
    assert accounts[str(path)].state == "indexed"
    assert accounts[str(path)].reason == f"mean not found: {reason}"
    assert run(pictures, mean).kinds[0].failed == 0  # it is not tried again


def test_a_file_that_holds_something_else_by_now_waits_unless_a_copy_is_sound(
    pictures, mean, add_file, tmp_path
):
    red, blue = (tmp_path / "photos" / f"{name}.png" for name in ("red", "blue"))
    copy = tmp_path / "photos" / "copy of red.png"
    copy.write_bytes(red.read_bytes())
    add_file(pictures, pictures.roots()[0].id, copy)
    Image.new("RGB", (20, 20), "pink").save(red)
    Image.new("RGB", (20, 20), "pink").save(blue)
    [one] = run(pictures, mean).kinds
    assert (one.done, one.failed, one.pending) == (len(COLOURS) - 1, 0, 1)
    assert str([255, 0, 0]) in found(pictures) and str([0, 0, 255]) not in found(pictures)


def test_it_stops_when_told_and_resumes(pictures, mean, monkeypatch):
    monkeypatch.setattr("fovea.indexer.analysing.analyse.REPORT_S", 0.0)
    stop = threading.Event()
    report = analyse(
        pictures, [mean], workers=1, stop=stop, progress=lambda now: now.done and stop.set()
    )
    assert report.stopped and 0 < report.kinds[0].done < len(COLOURS)
    rest = run(pictures, mean).kinds[0].done
    assert report.kinds[0].done + rest == len(COLOURS)


def test_what_is_in_flight_for_long_does_not_keep_a_run_from_stopping(
    pictures, mean, add_file, tmp_path, monkeypatch
):
    import stand_in

    monkeypatch.setattr("fovea.indexer.analysing.analyse.REPORT_S", 0.0)
    monkeypatch.setattr("fovea.indexer.analysing.analyse.LINGER_S", 0.5)
    added(pictures, add_file, tmp_path, "slow", stand_in.SLOW)
    stop = threading.Event()
    report = run(
        pictures,
        mean,
        stop=stop,
        progress=lambda now: now.done == len(COLOURS) and stop.set(),
        limits=Limits(seconds=600.0),
    )
    assert report.stopped and report.kinds[0].failed == 0
    assert len(found(pictures)) == report.kinds[0].done == len(COLOURS)


def test_what_was_found_is_kept_whatever_ends_a_run(pictures, mean):
    def interrupt(now):
        if now.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(pictures, mean, progress=interrupt)
    assert found(pictures)


def test_results_may_be_written_by_another_connection(pictures, mean):
    opened = []

    @contextlib.contextmanager
    def writing():
        with Library.open(pictures.folder) as library:
            opened.append(library)
            yield library

    run(pictures, mean, writing=writing)
    assert opened and len(found(pictures)) == len(COLOURS)


def test_switched_off_it_forgets_and_does_nothing_until_it_is_on(pictures, mean):
    run(pictures, mean)
    switch(pictures, "mean", False)
    assert is_off(pictures, "mean") and not found(pictures)
    [one] = run(pictures, mean).kinds
    assert one.is_off and (one.done, one.pending) == (0, 0)
    switch(pictures, "mean", True)
    assert run(pictures, mean).kinds[0].done == len(COLOURS)


def test_without_what_it_needs_pictures_wait(pictures, mean, monkeypatch):
    monkeypatch.setattr(type(mean), "missing", lambda self: "pip install colours")
    [one] = run(pictures, mean).kinds
    assert (one.done, one.pending, one.missing) == (0, len(COLOURS), "pip install colours")
    assert not has_work(pictures, [mean])


def test_pictures_of_an_offline_folder_wait(pictures, mean, tmp_path):
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    [one] = run(pictures, mean).kinds
    assert (one.done, one.failed, one.pending) == (0, 0, len(COLOURS))


def test_findings_go_with_their_picture(pictures, mean, tmp_path):
    run(pictures, mean)
    pictures.delete_files([bytes(tmp_path / "photos" / "red.png")])
    assert analysis_counts(pictures, "mean", "1").done == len(COLOURS) - 1
    assert len(found(pictures)) == len(COLOURS) - 1


def test_one_process_analyses_at_a_time(pictures, mean):
    with exclusive(pictures.folder, "analyses"), pytest.raises(LibraryBusy):
        run(pictures, mean)


def test_the_background_runs_what_runs_by_itself(pictures, mean, monkeypatch):
    monkeypatch.setenv(kinds.VARIABLE, "")
    idle = Background(pictures.folder)
    idle.start()
    idle.close(None)
    assert not found(pictures)
    monkeypatch.setenv(kinds.VARIABLE, "mean")
    background = Background(pictures.folder)
    background.start()
    thread = background._thread
    thread.join(60)
    background.close()
    assert len(found(pictures)) == len(COLOURS)


def test_an_unknown_kind_is_named(mean):
    with pytest.raises(FoveaError, match="no kind of analysis is called 'smell'; there are: mean"):
        kinds.chosen(["smell"])


def test_python_switches_kinds_and_tells_their_state(pictures, mean):
    run(pictures, mean)
    with fovea.Library.open(pictures.folder) as library:
        assert library.analyses() == {"mean": AnalysisState(len(COLOURS), 0, 0, False, None)}
        with pytest.raises(FoveaError, match="'smell'"):
            library.switch_analysis("mean", "smell", on=False)
        assert library.analyses()["mean"].is_off is False
        library.switch_analysis("mean", "places", on=False)
        assert library.analyses() == {"mean": AnalysisState(0, 0, 0, True, None)}
        assert place_counts(pictures).is_off
        library.switch_analysis("mean", "places")
        assert library.analyses() == {"mean": AnalysisState(0, 0, len(COLOURS), False, None)}
        assert not place_counts(pictures).is_off
