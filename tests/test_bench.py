"""The benchmarks still run; their figures are not checked."""

import math
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from building import make_environment
from fovea.cli.demo import QUERIES
from fovea.data import DEMO_PHOTOGRAPHS
from fovea.search.clip.preprocess import Preprocess
from fovea.search.library import checks
from fovea.search.library.library import Library
from fovea.search.query.likelihood import default_labels
from places import CHECKOUT

FOLDER = CHECKOUT / "bench"
SCRIPTS = sorted(set(FOLDER.glob("*.py")) - {FOLDER / "common.py"})


def load(path: Path) -> ModuleType:
    spec = spec_from_file_location(f"bench_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def path_as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment without fovea."""
    return make_environment(tmp_path_factory.mktemp("environment") / "venv")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_starts_where_fovea_is_not_installed(path, python, tmp_path):
    run = subprocess.run([python, path, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "usage:" in run.stdout.lower() and "--help" in run.stdout


def test_training_is_measured_by_updates_that_training_makes(monkeypatch):
    bench = load(FOLDER / "train.py")
    monkeypatch.setattr(bench, "keep_allocations", lambda: None)
    command = "train.py --batch 4 --length 8 --steps 1 --device cpu --dtype float32"
    monkeypatch.setattr(sys, "argv", command.split())
    options = bench.arguments()
    for slices in (1, 2):
        found = bench.measure(options, slices)
        assert found["images_per_s"] > 0 and found["memory"] > 0
        assert found["flops"] > 1e9  # of a pair: 11 million weights, most of them used often
    assert bench.loading(options, count=64, side=32) > 0


def test_another_models_encoder_is_timed(monkeypatch, capsys):
    command = "encode.py --model fovea-small --batches 2 --seconds 0.01 --device cpu"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--dtypes", "float32"])
    load(FOLDER / "encode.py").main()
    table = capsys.readouterr().out.splitlines()
    assert table[-1].split()[:2] == ["float32", "2"]


SIDES = {
    "ViT-B/32": 224,
    "ViT-B-32-256": 256,
    "ViT-B/16": 224,
    "ViT-L/14": 224,
    "SigLIP 2 B/16-256": 256,
    "Chinese-CLIP ViT-B/16": 224,
}


@pytest.mark.parametrize("name", ["bundled", *SIDES])
def test_models_to_choose_from_are_built_and_timed(name):
    bench = load(FOLDER / "models.py")
    assert list(bench.MODELS) == ["bundled", *SIDES]
    row = bench.measure(name, "cpu", "float32", 2, 0.01, tiny=True)
    assert row.rate > 0 and row.text_ms > 0 and row.pixels == SIDES.get(name, row.pixels)
    assert bench.line(row).startswith(name)


def test_the_recommended_model_is_as_large_as_is_said():
    from fovea.search.clip.checkpoints.shapes import expected_shapes
    from fovea.search.clip.config import ClipConfig, TextConfig, VisionConfig
    from fovea.search.models.named_hub import RECOMMENDED

    text = TextConfig(77, 49408, 512, 8, 12)
    config = ClipConfig(512, VisionConfig(256, 12, 768, 12, patch_size=32), text)
    count = sum(math.prod(shape) for shape in expected_shapes(config).values())
    assert count * 4 == pytest.approx(RECOMMENDED.bytes, rel=0.001)


def test_photographs_are_found_by_their_own_names(tmp_path, capsys, monkeypatch):
    """By a model of colours: red and lime are told apart, and two alike in name are no mistake."""
    colours = {"a.png": "red", "b.png": "lime", "c.png": "blue", "d.png": "blue"}
    for name, colour in colours.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    lines = ["file\twnid\tlabel", *(f"{name}\tn0\t{label}" for name, label in colours.items())]
    (tmp_path / "labels.tsv").write_text("\n".join(lines))
    bench = load(FOLDER / "photographs.py")

    def resolved(name, network):
        assert not network
        return SimpleNamespace(load=lambda: ColourModel(name))

    monkeypatch.setattr(bench, "resolve_model", resolved)
    command = [str(tmp_path), "--labels", str(tmp_path / "labels.tsv")]
    bench.main(
        [*command, "--model", "right", "--model", "wrong", "--model", "blind"],
        standalone_mode=False,
    )
    right, wrong, blind, chance = capsys.readouterr().out.splitlines()
    assert right.startswith("right: @1 100.0 %, @10 100.0 % of 4 ")
    assert wrong.startswith("wrong: @1 50.0 %, @10 100.0 % of 4 ")
    assert blind.startswith("blind: @1 0.0 %, @10 100.0 % of 4 ")  # ties are no finds
    assert chance.startswith("chance: @1 25.0 %")


class ColourModel:
    """Embeds an image and the last word of a text as a colour.

    One that is "wrong" swaps red and lime in texts, one that is "blind" sees all as the same.
    """

    def __init__(self, name):
        self.name = name

    def encode_images(self, images):
        rows = np.stack([np.asarray(image.convert("RGB"), np.float32)[0, 0] for image in images])
        if self.name == "blind":
            rows[:] = 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts):
        swapped = {"red": "lime", "lime": "red"} if self.name == "wrong" else {}
        words = [text.split()[-1] for text in texts]
        return self.encode_images(
            [Image.new("RGB", (1, 1), swapped.get(word, word)) for word in words]
        )


def test_everyday_queries_name_pictures_that_exist_and_are_either_right_or_near():
    queries = load(FOLDER / "everyday.py").everyday_queries()
    photographs = {*DEMO_PHOTOGRAPHS, *(f"p{number:03}.jpg" for number in range(1, 147))}
    assert len({query.text for query in queries}) == len(queries) == 30
    assert {*QUERIES, "an astronaut"} <= {query.text for query in queries}
    for query in queries:
        named = query.right + query.near
        assert query.right and len(set(named)) == len(named), query.text
        assert set(named) <= photographs, query.text


def test_everyday_answers_are_counted(monkeypatch, tmp_path, capsys):
    """With an encoder for which every right picture is nearest to its query."""
    bench = load(FOLDER / "everyday.py")
    queries = bench.everyday_queries()
    names = sorted({name for query in queries for name in query.right})
    for name in names:
        (tmp_path / name).touch()

    class Knowing:
        def encode_texts(self, texts):
            chosen = [next(q for q in queries if q.text == text) for text in texts]
            return np.array([[name in query.right for name in names] for query in chosen], "f4")

    class Info:
        def load(self):
            return Knowing()

    monkeypatch.setattr(bench, "resolve_model", lambda name, network: Info())
    monkeypatch.setattr(bench, "photographs", lambda folder: [folder / name for name in names])
    monkeypatch.setattr(bench, "embedded", lambda encoder, files: np.eye(len(files), dtype="f4"))
    monkeypatch.setattr(sys, "argv", ["everyday.py", "--photos", str(tmp_path)])
    bench.main()
    assert "right at 1: 30 " in (told := capsys.readouterr().out) and "first 3: 30 " in told


@pytest.mark.parametrize(
    "right, near, has_match, depth, told",
    [
        ("10", "00", True, 1, True),
        ("01", "00", True, 1, False),
        ("01", "00", True, 2, True),  # half of them
        ("001", "000", True, 3, False),
        ("001", "010", True, 3, True),  # doubtful ones do not count
        ("10", "00", True, 0, False),
        ("00", "11", False, 0, True),
        ("00", "11", False, 1, False),
    ],
)
def test_a_line_tells_rightly_where_half_above_it_matches(right, near, has_match, depth, told):
    bench = load(FOLDER / "likelihood.py")
    marks = [np.array([mark == "1" for mark in text]) for text in (right, near)]
    assert bench.tells(bench.Case(np.zeros((len(right), 3)), *marks, has_match), depth) == told


def test_the_line_is_fitted_to_tell_answers_with_a_match_from_those_without():
    bench = load(FOLDER / "likelihood.py")
    rng = np.random.default_rng(0)

    def case(has_match):
        found = rng.normal(0, 1, (10, 3))
        right = np.zeros(10, bool)
        if has_match:
            found[0], right[0] = found[0] + 4, True
        return bench.Case(found, right, np.zeros(10, bool), has_match)

    fitting, apart = ([case(n % 2 == 0) for n in range(400)] for _ in range(2))
    empty = bench.Signs((0.0,) * 3, 0.0, 1.0, bench.Worth(0, 1, 1))
    signs = bench.fitted(fitting, empty)
    worth = bench.worth_of(apart, [bench.probabilities(signs, one.found) for one in apart])
    assert worth.told > 0.9 and 0.3 < worth.chance < 0.6 and worth.answers == 400
    never = bench.worth_of(apart, [np.zeros(10) for _ in apart])
    assert (never.told, never.chance) == (0.5, 0.5)


def test_labels_that_are_right_are_labels_that_can_be_shown():
    classes, seen = load(FOLDER / "labels.py").right_labels()
    for name, labels in {**classes, **seen}.items():
        assert labels <= set(default_labels()), name
    assert classes["pug"] == {"dog"} and all(file.startswith("p") for file in seen)


def test_the_threshold_is_the_lowest_from_which_enough_labels_are_right():
    bench = load(FOLDER / "labels.py")
    chance = np.array([0.9, 0.2, 0.8, 0.5, 0.1])
    right = np.array([True, True, False, True, False])
    assert bench.threshold_of(right, chance, 0.6) == 0.1  # three of five
    assert bench.threshold_of(np.array([True, False, False, False, False]), chance, 0.6) == 0.9
    assert bench.threshold_of(np.zeros(5, bool), chance) == 1.0


def test_what_was_measured_is_written_as_it_is_read(tmp_path):
    bench = load(FOLDER / "likelihood.py")
    signs = bench.Signs((4.0, -1e-05, 0.1), -6.0, 0.1, bench.Worth(0.8, 0.45, 200))
    measured = bench.Measured("m" * 64, (0.1, -0.2), signs, signs)
    path = bench.write_signs(measured, tmp_path)
    assert bench.measured_in(tmp_path, "m" * 64, 2) == measured
    assert len(path.read_text().splitlines()) < 40


class Answering(BaseHTTPRequestHandler):
    """Answers queries with 9 bytes; some are refused, on some it hangs up."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if "hang" in self.path:
            self.close_connection = True
            return
        self.send_response(503 if "refused" in self.path else 200)
        self.send_header("Content-Length", "9")
        self.end_headers()
        self.wfile.write(b"123456789")

    def log_message(self, *arguments):
        pass


def test_users_ask_again_after_each_answer_and_each_failure():
    bench, texts = load(FOLDER / "serve.py"), []
    for number in range(100_000):
        texts.append({3: "refused", 7: "hang"}.get(number, str(number)))
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        times, failed = bench.ask_all(server.server_address[1], 3, 1.0, 0.0, texts)
        typed, none = bench.ask_all(server.server_address[1], 3, 1.0, 0.4, ["a"] * 100)
        server.shutdown()
        thread.join()
    assert failed == 2 and len(times) > 20 and (times > 0).all()
    assert none == 0 and 3 <= len(typed) <= 9


def test_rclip_s_way_prepares_a_picture_as_fovea_does(tmp_path):
    side = load(FOLDER / "rivals" / "rclip_side.py")
    noise = np.random.default_rng(0).integers(0, 256, (300, 411, 3), np.uint8)
    Image.fromarray(noise).save(path := tmp_path / "a.jpg", quality=95)
    preprocess = Preprocess(side.SIZE)
    with Image.open(path) as image:
        expected = preprocess.normalise(preprocess.pixels(image)[None])[0]
    assert np.allclose(side.read(str(path)), expected, atol=1e-6)


@pytest.mark.parametrize("has_onnxruntime", [True, False])
def test_rclip_s_way_stands_in_where_rclip_cannot_be_installed(
    monkeypatch, tmp_path, capsys, has_onnxruntime
):
    rival = load(FOLDER / "rivals" / "beside_rclip.py")

    def environment(folder, requirements, package, said):
        said.append("python3: no network")
        return tmp_path / "python" if package == "onnxruntime" and has_onnxruntime else None

    monkeypatch.setattr(rival, "find_spec", lambda name: None)
    monkeypatch.setattr(rival, "_environment", environment)
    monkeypatch.setattr(rival, "_export", lambda *places: None)
    monkeypatch.setattr(rival, "_version", lambda python, package: "1.0")
    if has_onnxruntime:
        (found,) = rival.prepared(["rclip"], tmp_path, tmp_path)
        assert found.is_imitation and found.name == "rclip's way, onnxruntime 1.0"
    else:
        with pytest.raises(SystemExit, match="neither rclip nor onnxruntime .* no network; "):
            rival.prepared(["rclip"], tmp_path, tmp_path)
    told = capsys.readouterr().err
    assert told == "no rclip here (python3: no network); its way of encoding stands in\n"


def test_a_python_that_cannot_make_an_environment_is_passed_over(monkeypatch):
    rival = load(FOLDER / "rivals" / "beside_rclip.py")
    monkeypatch.setattr(rival.shutil, "which", lambda name: "/nowhere/" + name)
    monkeypatch.setenv("PYENV_ROOT", "/nowhere")
    own = "{}.{}".format(*sys.version_info)
    expected = [sys.executable] if own in rival.RELEASES else []
    assert [str(path) for path in rival._interpreters()] == expected


def test_vectors_of_two_programs_are_compared_without_what_all_have_in_common(tmp_path):
    bench, folder = load(FOLDER / "index.py"), tmp_path / "small"
    rows = np.random.default_rng(0).normal(size=(4, 8)).astype("f4") * 0.01 + 1
    other = rows + np.float32([[1], [0], [0], [0]]) * np.eye(8, dtype="f4")[0]
    for name, found in (("index", rows), ("same", rows * 2), ("other", other)):
        np.savez(bench.vectors_of(folder, name), **{f"{n}.jpg": row for n, row in enumerate(found)})
    assert bench.agreement(folder, "same").startswith("cosine 1.0000 in the mean, 1.0000 at worst")
    assert float(bench.agreement(folder, "other").split()[1]) < 0.9
    np.savez(bench.vectors_of(folder, "fewer"), **{"0.jpg": rows[0]})
    assert bench.agreement(folder, "fewer") == "no: 4 files here, 1 there"


def test_a_large_library_is_plausible_and_kept(tmp_path, monkeypatch):
    bench = load(FOLDER / "large.py")
    monkeypatch.setattr(bench, "apart", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(bench, "prepare", lambda place: None)
    place = bench.large_library(tmp_path / "made", 3000)
    with Library.open(place) as library:
        assert library.counts().images == 3000
        assert not [*checks.links(library.conn), *checks.names(library.conn)]
        [(cameras, formats, folders, shared)] = library.rows(
            "SELECT (SELECT count(DISTINCT camera) FROM images), "
            "(SELECT count(DISTINCT format) FROM images), "
            "(SELECT count(DISTINCT folder) FROM folded), "
            "(SELECT count(*) FROM files WHERE state = 'indexed') - 3000"
        )
        assert (cameras, formats) == (6, 3) and 100 < folders < 2500 and 20 < shared < 150
    monkeypatch.setattr(bench, "fill", None)  # it is there
    assert bench.large_library(tmp_path / "made", 3000) == place
    with pytest.raises(SystemExit, match="a library of 3000 pictures; choose another folder"):
        bench.large_library(tmp_path / "made", 2000)
