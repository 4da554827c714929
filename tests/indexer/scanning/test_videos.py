"""Videos in a library: a row each, their moments with it, and all of it accounted for."""

import os
import threading

import numpy as np
import pytest

from films.drawn import cut, film, needs_av, sound
from fovea.indexer.decoding import formats
from fovea.indexer.decoding.formats import VIDEO_REASON
from fovea.indexer.scanning import changes
from fovea.indexer.scanning.verify import verify
from fovea.indexer.workers.query_image import QueryImageDecoder, content_hash
from fovea.search.index.moments import moment_times, stored_moment, video_counts
from fovea.search.maintenance.changeover import remove_model
from fovea.search.maintenance.forget import forget_root
from scanner import counts
from toys import FORMER, NEW, ColourEncoder, described, switch

SCENES = (("red", 3), ("lime", 3), ("blue", 3))


@pytest.fixture
def films(tmp_path):
    """A folder with one video and one picture."""
    from PIL import Image

    folder = tmp_path / "films"
    folder.mkdir()
    film(folder / "a.mp4", SCENES)
    Image.new("RGB", (16, 16), "cyan").save(folder / "b.png")
    return folder


def moments_of(library):
    """Each video's row of moments: (times, vectors)."""
    rows = library.rows("SELECT times, vectors FROM moments ORDER BY embedding_id")
    return [
        (np.frombuffer(times, "<i8"), np.frombuffer(vectors, "<f2").astype(np.float32))
        for times, vectors in rows
    ]


@needs_av
def test_a_video_is_one_image_with_its_moments(scan, films):
    assert counts(scan(films)) == {"found": 2, "embedded": 2}
    [row] = scan.library.db.query("SELECT * FROM images WHERE duration_ms IS NOT NULL")
    assert (row["format"], row["width"], row["height"]) == ("MP4", 64, 48)
    assert row["duration_ms"] == pytest.approx(9000, abs=200)
    [(times, vectors)] = moments_of(scan.library)
    assert times == pytest.approx([0, 3000, 6000], abs=900) and row["poster_ms"] in times
    vectors = vectors.reshape(3, 3)
    assert vectors.argmax(axis=1).tolist() == [0, 1, 2]  # red, lime, blue
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-2)
    [(poster,)] = scan.library.rows(
        "SELECT vector FROM embeddings WHERE image_id = ?", (row["id"],)
    )
    at = times.tolist().index(row["poster_ms"])
    assert np.frombuffer(poster, "<f2").astype(np.float32) == pytest.approx(vectors[at], abs=2e-3)
    assert scan.encoder.encoded == 1 + 1 + 3  # the picture, the poster, the moments
    report = verify(scan.library)
    assert report.ok and {file.state for file in report.files} == {"indexed"}
    assert video_counts(scan.library, 1) == (1, 3)


@needs_av
def test_a_moved_or_copied_video_costs_nothing(scan, films):
    scan(films)
    before, loads = moments_of(scan.library), scan.encoder.encoded
    (films / "sub").mkdir()
    os.rename(films / "a.mp4", films / "sub" / "c.mp4")
    (films / "d.mp4").write_bytes((films / "sub" / "c.mp4").read_bytes())
    assert counts(scan(films)) == {"found": 3, "unchanged": 1, "moved": 2}
    assert scan.encoder.encoded == loads
    after = moments_of(scan.library)
    assert len(after) == 1 and np.array_equal(after[0][1], before[0][1])


@needs_av
def test_a_changed_video_has_new_moments_and_a_deleted_one_none(scan, films):
    scan(films)
    film(films / "a.mp4", [("blue", 3)])
    os.utime(films / "a.mp4", ns=(10**18, 10**18))
    assert counts(scan(films))["embedded"] == 1
    [(times, _)] = moments_of(scan.library)
    assert times.tolist() == [0]
    os.remove(films / "a.mp4")
    scan(films)
    [root] = scan.library.roots()
    forget_root(scan.library, root.id)
    assert moments_of(scan.library) == [] and verify(scan.library).ok


@needs_av
def test_a_stopped_run_has_all_of_a_video_or_nothing(scan, films):
    stop = threading.Event()

    class Stopping(ColourEncoder):
        def encode_pixels(self, pixels):
            stop.set()
            return super().encode_pixels(pixels)

    scan.encoder = Stopping()
    assert scan(films, stop=stop).stopped
    [(videos, rows)] = scan.library.rows(
        "SELECT (SELECT count(*) FROM images WHERE duration_ms NOT NULL), count(*) FROM moments"
    )
    assert videos == rows
    scan.encoder = ColourEncoder()
    scan(films)
    assert len(moments_of(scan.library)) == 1 and verify(scan.library).ok


@needs_av
def test_a_transaction_that_fails_leaves_no_video_without_moments(scan, films, monkeypatch):
    import sqlite3

    from fovea.search.library import files

    def refuse(*arguments):
        raise sqlite3.IntegrityError("no moments today")

    monkeypatch.setattr(files, "write_moments", refuse)
    with pytest.raises(sqlite3.IntegrityError):
        scan(films)
    assert scan.library.rows("SELECT * FROM embeddings") == []
    monkeypatch.undo()
    assert counts(scan(films)) == {"found": 2, "embedded": 2}


@needs_av
def test_truncated_and_hostile_videos_are_accounted_for(scan, tmp_path, films):
    whole = film(tmp_path / "whole.mkv", SCENES)
    cut(whole, films / "cut.mkv", 0.7)
    sound(films / "sound.mp4")
    (films / "empty.mov").write_bytes(b"")
    (films / "junk.webm").write_bytes(b"\x1aE\xdf\xa3" + bytes(5000))
    assert counts(scan(films)) == {"found": 6, "embedded": 3, "failed": 3}
    told = {os.path.basename(file.path): file.reason for file in verify(scan.library).files}
    assert told["cut.mkv"] == "damaged: its end is missing"
    assert told["sound.mp4"] == "no moving picture in it, only sound"
    assert told["empty.mov"] == "broken: the file is empty"
    assert told["junk.webm"].startswith("broken: ")
    assert counts(scan(films)) == {"found": 6, "unchanged": 6}  # none is tried again


def test_without_the_extra_videos_are_passed_over_and_counted(scan, films_by_name, monkeypatch):
    monkeypatch.setattr(changes, "video_available", lambda: False)
    monkeypatch.setattr(formats, "video_available", lambda: False)
    report = scan(films_by_name)
    assert (report.videos, report.skipped, report.found) == (2, 2, 2)
    assert set(scan.files().values()) == {("skipped", VIDEO_REASON)}
    assert scan(films_by_name).videos == 2  # said again, as nothing has changed


@pytest.fixture
def films_by_name(tmp_path):
    folder = tmp_path / "named"
    folder.mkdir()
    for name in ("a.mp4", "B.MOV"):
        (folder / name).write_bytes(b"what is in it is not looked at")
    return folder


@needs_av
def test_with_the_extra_they_are_then_indexed(scan, films, monkeypatch):
    monkeypatch.setattr(changes, "video_available", lambda: False)
    assert counts(scan(films)) == {"found": 2, "embedded": 1, "skipped": 1}
    monkeypatch.undo()
    assert counts(scan(films)) == {"found": 2, "embedded": 1, "unchanged": 1}
    assert len(moments_of(scan.library)) == 1


@needs_av
def test_another_model_embeds_the_moments_too_and_its_going_takes_them_along(scan, films):
    scan(films, model=described(FORMER))
    assert switch(scan.library, NEW).switched
    [(_, former), (_, new)] = moments_of(scan.library)
    assert (len(former), len(new)) == (3 * 3, 3 * 4)
    assert verify(scan.library).ok
    gone = next(row for row in scan.library.models() if row.identity == FORMER)
    remove_model(scan.library, gone)
    assert [len(vectors) for _, vectors in moments_of(scan.library)] == [3 * 4]


@needs_av
def test_verify_tells_moments_that_are_lost_or_wrong(scan, films):
    scan(films)
    scan.library.conn.execute("UPDATE moments SET vectors = zeroblob(length(vectors))")
    assert "1 embeddings are not unit vectors" in verify(scan.library).problems
    scan.library.conn.execute("DELETE FROM moments")
    assert "1 videos whose moments are lost" in verify(scan.library).problems


@needs_av
def test_a_moment_is_found_by_a_time_within_its_scene(scan, films):
    scan(films)
    image_id, model = scan.image_of(films / "a.mp4"), scan.library.models()[0]
    times = moment_times(scan.library, image_id)
    for at, place in ((0, 0), (times[1] - 1, 0), (times[1], 1), (10**6, 2)):
        time, vector = stored_moment(scan.library.conn, image_id, model, at)
        assert time == times[place] and vector.argmax() == place
    picture = scan.image_of(films / "b.png")
    assert stored_moment(scan.library.conn, picture, model, 0) is None
    assert moment_times(scan.library, picture) == []


@needs_av
def test_a_video_can_be_what_a_query_names(scan, films):
    scan(films)
    digest = content_hash(films / "a.mp4")
    assert scan.library.image_by_hash([digest]) == {digest: scan.image_of(films / "a.mp4")}
    with QueryImageDecoder(scan.model.preprocess) as decoder:
        for at, place in ((500, 0), (4000, 1), (8500, 2)):
            assert decoder.pixels(films / "a.mp4", at)[4, 4].argmax() == place
        assert decoder.pixels(films / "a.mp4").shape == (8, 8, 3)
        with pytest.raises(Exception, match="only a video has a time"):
            decoder.pixels(films / "b.png", 0)


@needs_av
def test_limits_of_videos_are_their_own(scan, films):
    from fovea.indexer.decoding.limits import Limits

    assert Limits().video_time(10**10) > 400 > Limits().video_time(0)
    report = scan(films, limits=Limits(file_bytes=20, video_bytes=10**6))
    assert (report.embedded, report.failed) == (1, 1)  # the picture is larger than 20 bytes
    film(films / "c.mp4", [("red", 1)])
    scan(films, limits=Limits(video_bytes=10))
    assert scan.files()[b"c.mp4"][1].startswith("too large: the file has")
