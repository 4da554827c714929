"""Damaged index snapshots, before they are opened and while they are in use."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import Library

from .ground import Plan, Tally, Toy, child, draw, index, workplace

PICTURES = 400
QUERIES, K = 8, 10
AT_ONCE = 25  # damages that one process meets
OPTIONS = {"exhaustive": IndexOptions(), "ivf": IndexOptions(exhaustive_below=100)}
Damage = Callable[[bytes, random.Random], bytes]


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One to eight bits are others."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data))]


def swapped(data: bytes, rng: random.Random) -> bytes:
    """Two pieces of the same length have changed places."""
    size = rng.choice((8, 64, 512, 4096))
    first, second = sorted(rng.sample(range(len(data) // size), 2))
    pieces = [data[n * size : (n + 1) * size] for n in (first, second)]
    changed = bytearray(data)
    changed[first * size : (first + 1) * size] = pieces[1]
    changed[second * size : (second + 1) * size] = pieces[0]
    return bytes(changed)


def zeroed(data: bytes, rng: random.Random) -> bytes:
    """A page contains zeros, as after a crash of the system."""
    place = rng.randrange(max(1, len(data) // 4096)) * 4096
    page = data[place : place + 4096]
    return data[:place] + bytes(len(page)) + data[place + len(page) :]


def longer(data: bytes, rng: random.Random) -> bytes:
    """Something follows the end."""
    return data + rng.randbytes(rng.randint(1, 5000))


DAMAGES: tuple[Damage, ...] = (flipped, flipped, cut, swapped, zeroed, longer)


def snapshots(plan: Plan) -> Tally:
    """Damage a snapshot on the disk and search: the answer must be the database's."""
    tally, rng = Tally(), plan.random("snapshots")
    with workplace() as place:
        library = place / "library"
        _filled(library, place / "photos", PICTURES)
        for name, options in OPTIONS.items():
            path, right = _saved(library, options)
            whole, older = path.read_bytes(), place / f"older-{name}"
            older.write_bytes(whole)
            count = plan.count // len(OPTIONS)
            for start in range(0, count, AT_ONCE):
                seeds = [rng.getrandbits(40) for _ in range(min(AT_ONCE, count - start))]
                ended = child(lambda: _wrong(library, path, whole, seeds, right, options))  # noqa: B023
                path.write_bytes(whole)
                tally.tried += len(seeds)
                if ended.value is None:
                    tally.add("unaccounted", f"{name}: {ended.failure or ended.error} {seeds}")
                for complaint in ended.value or ():
                    tally.add("wrong", f"{name}: {complaint}")
            _stale(library, path, older, place / "photos", options, tally)
        tally.note = "with an exhaustive and with an IVF index"
    return tally


def _filled(library: Path, root: Path, pictures: int) -> None:
    for number in range(pictures):
        draw(root / f"{number % 7}" / f"{number}.png", number)
    ended = child(lambda: bool(index(library, root, batch_size=64)))
    assert ended.value, ended


def _saved(library: Path, options: IndexOptions) -> tuple[Path, list[list[int]]]:
    """Save a snapshot of this kind; return its path and the right answers."""

    def save() -> list[list[int]]:
        with Library.open(library) as opened:
            model = opened.model()
            assert model is not None
            snapshot_path(opened, model.id).unlink(missing_ok=True)
            VectorIndex.open(opened, model.id, options=options).save()
            return _exact(opened)

    ended = child(save)
    assert ended.value, ended
    return next(library.glob("index-*.snapshot")), ended.value


def _exact(library: Library) -> list[list[int]]:
    """The nearest images of each query, compared with every embedding of the database."""
    rows = library.rows(
        "SELECT image_id, vector FROM embeddings WHERE model_id = "
        "(SELECT value FROM library WHERE key = 'model_id')"
    )
    ids = np.array([image_id for image_id, _ in rows])
    vectors = np.stack([np.frombuffer(vector, "<f2") for _, vector in rows]).astype(np.float32)
    order = np.argsort(-(_queries() @ vectors.T), axis=1, kind="stable")[:, :K]
    nearest: list[list[int]] = ids[order].tolist()
    return nearest


def _queries() -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (QUERIES, 8, 8, 3), dtype=np.uint8)
    return Toy().encode_pixels(pixels)


def _answers(index: VectorIndex) -> list[list[int]]:
    found = index.search(_queries(), K)
    return [list(map(int, ids)) for ids in found.ids]


def _agree(answers: list[list[int]], right: list[list[int]], options: IndexOptions) -> bool:
    """Whether answers are right; an approximate index may miss one in ten."""
    pairs = zip(answers, right, strict=True)
    if options is OPTIONS["exhaustive"]:
        return all(sorted(one) == sorted(other) for one, other in pairs)
    hits = sum(len(set(one) & set(other)) for one, other in pairs)
    return hits >= 0.9 * QUERIES * K and all(len(set(one)) == K for one in answers)


def _wrong(
    library: Path,
    path: Path,
    whole: bytes,
    seeds: Iterable[int],
    right: list[list[int]],
    options: IndexOptions,
) -> list[str]:
    """Meet some damages; return what was answered wrongly."""
    complaints = []
    with Library.open(library) as opened:
        model = opened.model()
        assert model is not None
        for seed in seeds:
            rng = random.Random(seed)
            damage = rng.choice(DAMAGES)
            path.write_bytes(damage(whole, rng))
            found = VectorIndex.open(opened, model.id, options=options)
            if not _agree(_answers(found), right, options) or found.check():
                complaints.append(f"{damage.__name__} by {seed}")
    return complaints


def _stale(
    library: Path, path: Path, older: Path, root: Path, options: IndexOptions, tally: Tally
) -> None:
    """Put an older snapshot back after pictures were deleted and added."""
    for number, file in enumerate(sorted(root.rglob("*.png"))[:20]):
        file.unlink()
        draw(root / "new" / f"{number}-{file.stem}.png", 10_000 + 100 * int(file.stem) + number)
    assert child(lambda: bool(index(library, root, confirm_deletions=True))).value
    path.write_bytes(older.read_bytes())

    def ask() -> bool:
        with Library.open(library) as opened:
            model = opened.model()
            assert model is not None
            found = VectorIndex.open(opened, model.id, options=options)
            return _agree(_answers(found), _exact(opened), options)

    ended = child(ask)
    tally.tried += 1
    if ended.value is None:
        tally.add("unaccounted", f"an older snapshot: {ended.failure or ended.error}")
    elif not ended.value:
        tally.add("wrong", "an older snapshot: other answers than the database's")


# While it is in use


def snapshots_in_use(plan: Plan) -> Tally:
    """Truncate, overwrite or remove a snapshot below a process that has opened it."""
    tally, rng = Tally(), plan.random("snapshots in use")
    with workplace() as place:
        library = place / "library"
        _filled(library, place / "photos", PICTURES)
        for number in range(plan.count):
            name, options = list(OPTIONS.items())[number % 2]
            path, right = _saved(library, options)
            act = rng.choice(("truncated", "emptied", "overwritten", "removed", "replaced"))
            seed = rng.getrandbits(40)
            ended = child(lambda: _ask_twice(library, path, act, seed, options))  # noqa: B023
            tally.tried += 1
            where = f"{name}, {act} while in use"
            if ended.value is None:
                tally.add("unaccounted", f"{where}: {ended.failure or ended.error}")
            elif not _agree(ended.value, right, options):
                tally.add("wrong", where)
    return tally


def _ask_twice(
    library: Path, path: Path, act: str, seed: int, options: IndexOptions
) -> list[list[int]]:
    rng = random.Random(seed)
    with Library.open(library) as opened:
        model = opened.model()
        assert model is not None
        index = VectorIndex.open(opened, model.id, options=options)
        size = path.stat().st_size
        if act == "removed":
            path.unlink()
        elif act == "replaced":
            other = path.with_name("other")
            other.write_bytes(rng.randbytes(size))
            os.replace(other, path)
        elif act == "overwritten":
            with open(path, "r+b") as file:
                file.write(rng.randbytes(size))
        else:
            os.truncate(path, 0 if act == "emptied" else rng.randrange(size))
        return _answers(index)
