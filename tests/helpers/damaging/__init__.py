"""Damage the database of a small library, and see what every surface makes of it.

By hand, for a number of damages of each kind and a seed: python tests/helpers/damaging/__init__.py
500 1
"""

import contextlib
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[1])]

from click.testing import CliRunner
from PIL import Image

from fovea.cli import cli
from fovea.search.errors import FoveaError
from fovea.search.library import damage
from fovea.search.library.library import DATABASE, Library
from fovea.search.models.lazy import LazyEncoder
from fovea.web.app import create_app
from scanner import Scanner
from toys import TolerantEncoder

PICTURES = 40
PAGE = 4096


def made(folder):
    """A library of pictures in two folders, and the pictures."""
    for number in range(PICTURES):
        place = folder / "photos" / ("trip" if number % 3 else "home")
        place.mkdir(parents=True, exist_ok=True)
        colour = (6 * number, 255 - 6 * number, 9)
        Image.new("RGB", (8, 6), colour).save(place / f"{number:03d} red.png")
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    with Library.open(folder / "library", create=True) as library:
        Scanner(library)(folder / "photos")
    return folder


def flip(data, random):
    """Change one bit."""
    at = random.randrange(len(data))
    data[at] ^= 1 << random.randrange(8)


def swap(data, random):
    """Exchange two pages."""
    a, b = random.sample(range(len(data) // PAGE), 2)
    one, other = data[a * PAGE : (a + 1) * PAGE], data[b * PAGE : (b + 1) * PAGE]
    data[a * PAGE : (a + 1) * PAGE], data[b * PAGE : (b + 1) * PAGE] = other, one


def wipe(data, random):
    """Fill a page with zeros, or with noise."""
    at = random.randrange(len(data) // PAGE) * PAGE
    data[at : at + PAGE] = random.choice([bytes(PAGE), random.randbytes(PAGE)])


def cut(data, random):
    """Lose the end."""
    del data[random.randrange(len(data)) :]


KINDS = (flip, swap, wipe, cut)


def encoder_of(row):
    encoder = TolerantEncoder()
    return LazyEncoder(
        encoder.name, encoder.identity, encoder.dim, encoder.preprocess,
        open_words=lambda: encoder, load=lambda: encoder,
    )  # fmt: skip


REQUESTS = (
    "/api/status", "/api/roots", "/api/facets", "/api/search?limit=100", "/api/failures",
    "/api/search?limit=100&q=red", "/api/search?limit=100&q=in:trip", "/api/images/3",
    "/api/search?limit=100&q=after:2000", "/api/images/3/thumbnail", "/api/images/3/similar",
    "/api/images/5/original", "/api/scans", "/api/model", "/api/search?q=red&sort=name&limit=100",
)  # fmt: skip
COMMANDS = (
    ["status"], ["status", "--json"], ["verify"], ["verify", "--quick", "--json"],
    ["roots", "list"],
    ["search", "in:trip", "-k", "100"], ["search", "", "-k", "100"],
)  # fmt: skip


class Traceback(AssertionError):
    """A surface shows an error that is not one clear line."""


def drive(folder, *, photos, index=False, forget=False, page=False):
    """Run commands and requests; return what each of them said: "ok", a number of hits, a line.

    Raise ``Traceback`` for an error that is none of ours.
    """
    place, said = folder / "library", {}
    red = str(photos / "home" / "003 red.png")
    for words in [*COMMANDS, ["similar", red, "-k", "100"]]:
        said[" ".join(words[:2])] = _command([*words, "--library", str(place)])
    said |= _requests(place, (*REQUESTS, "/") if page else REQUESTS)
    if index:
        said["index"] = _index(place, photos)
    if forget:
        said["forget"] = _command(["roots", "remove", str(photos), "--library", str(place)])
    return said


def _command(words):
    result = CliRunner().invoke(cli, words, prog_name="fovea")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise Traceback(f"fovea {' '.join(words)}: {result.exception!r}") from result.exception
    if result.exit_code:
        last = result.stderr.rstrip("\n").split("\n")[-1]
        if not last.startswith("Error: "):
            raise Traceback(f"fovea {' '.join(words)}: {result.stderr!r}")
        return last
    return len(result.stdout.splitlines()) if words[0] in ("search", "similar") else "ok"


def _index(place, photos):
    try:
        with Library.open(place) as library:
            report = Scanner(library)(photos)
        return report.embedded
    except FoveaError as exc:
        return str(exc)
    except Exception as exc:
        error = damage.explained(place / DATABASE, exc)  # as the command does
        if error is None:
            raise Traceback(f"index: {exc!r}") from exc
        return str(error)


def _requests(place, paths):
    said = {}
    try:
        app = create_app(place, encoder_of=encoder_of, testing=True)
    except FoveaError as exc:
        return {"serve": str(exc)}
    except Exception as exc:
        error = damage.explained(place / DATABASE, exc)
        if error is None:
            raise Traceback(f"serve: {exc!r}") from exc
        return {"serve": str(error)}
    try:
        client = app.test_client()
        for path in paths:
            answer = client.get(path)
            if answer.status_code == 500:
                raise Traceback(f"GET {path}: {answer.get_data(as_text=True)}")
            if answer.status_code != 200:
                said[path] = (answer.get_json() or {}).get("detail") or str(answer.status_code)
            else:
                said[path] = len(answer.get_json()["hits"]) if "search?" in path else "ok"
            answer.close()
    finally:
        app.extensions["fovea"].close()
    return said


def damaged(original, folder, kind, random):
    """Copy a library into a folder and damage its database."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original / "library", folder / "library")
    data = bytearray((original / "library" / DATABASE).read_bytes())
    kind(data, random)
    (folder / "library" / DATABASE).write_bytes(data)
    damage._checked.clear()
    return folder


def silent(said, right):
    """Searches that returned fewer hits, though they returned some or none without a word."""
    return {
        what: (count, said[what])
        for what, count in right.items()
        if isinstance(count, int) and isinstance(said.get(what), int) and said[what] < count
    }


def main(number, seed):
    """Print what came of so many damages of each kind."""
    with tempfile.TemporaryDirectory() as place:
        original = made(Path(place) / "original")
        photos = original / "photos"
        copy = damaged(original, Path(place) / "copy", lambda data, random: None, None)
        right = drive(copy, photos=photos, index=True, page=True)
        print(right)
        for kind in KINDS:
            tally = Counter()
            for run in range(number if kind is not cut else number // 4):
                chance = random.Random(f"{seed} {kind.__name__} {run}")
                copy = damaged(original, Path(place) / "copy", kind, chance)
                options = {"index": run % 4 == 0, "forget": run % 4 == 1, "page": run % 4 == 2}
                said = {}
                try:
                    said = drive(copy, photos=photos, **options)
                except Traceback as exc:
                    tally["traceback"] += 1
                    print(kind.__name__, run, exc)
                sound = said.get("verify") == "ok"
                tally["verify says sound" if sound else "verify says damaged"] += 1
                if fewer := silent(said, right):
                    tally["fewer hits in silence"] += 1
                    print(kind.__name__, run, "fewer", fewer, said["verify"])
                if sound and said != {key: right.get(key, said[key]) for key in said}:
                    tally["sound, but answers differ"] += 1
                    print(kind.__name__, run, {k: v for k, v in said.items() if v != right.get(k)})
            print(kind.__name__, dict(tally), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        os.environ["FOVEA_OFFLINE"] = "1"
        main(int(sys.argv[1]), sys.argv[2])
