import io
import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from coloured import captioned_source, encoded, labelled_source, write_tar
from fovea.search.clip.datasets.pairs import Caption, PairSource, open_pairs
from fovea.search.clip.errors import ModelError
from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.clip.training.augment import Augmentation
from fovea.search.clip.training.batches import Batches, ImageCache

TOKENIZER = Tokenizer([])


def stream(*sets, batch_size=6, **changes):
    options = {"image_size": 16, "context_length": 40, "augmentation": Augmentation()}
    return Batches(sets, TOKENIZER, batch_size=batch_size, **options | changes)


@pytest.fixture
def pairs(tmp_path):
    return open_pairs(captioned_source(tmp_path, each=2))


def test_a_batch_says_what_it_holds(pairs):
    batch = stream(pairs).batch(0)
    assert batch.pixels.shape == (6, 16, 16, 3) and batch.pixels.dtype == np.uint8
    assert batch.tokens.shape[0] == 6 and batch.tokens.dtype == np.int64
    assert (batch.tokens == TOKENIZER.end_id).any(axis=0)[-1]  # no wider than the longest
    assert (
        batch.tags.shape == (6, 4) and batch.tags.dtype == np.int64
    )  # image, drawn, both captions


def test_each_image_comes_with_several_captions(tmp_path, pairs):
    batch = stream(pairs, open_pairs(labelled_source(tmp_path)), captions=2).batch(0)
    assert batch.tokens.shape[0] == 12 and len(batch.pixels) == 6
    assert batch.owners.tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert batch.sources.tolist() == [0, 0, 0, 1, 1, 1] * 2
    for image in range(3):  # which has two captions
        assert not np.array_equal(batch.tokens[image], batch.tokens[image + 6])
    assert np.array_equal(batch.tags[:6, 0], batch.tags[6:, 0])


def test_every_class_has_a_prompt(tmp_path, pairs):
    labelled = open_pairs(labelled_source(tmp_path))
    batch = stream(pairs, labelled, class_prompts=True).batch(3)
    prompts = slice(6, None)
    assert batch.owners[prompts].tolist() == [-1] * 6 and set(batch.sources[prompts]) == {1}
    texts = ["".join(map(chr, row)) for row in batch.tokens[prompts]]
    assert len(set(texts)) == 6
    alike = [set(row[row >= 0]) for row in batch.tags]
    for image in range(3, 6):  # the labelled ones: each shares its class with one prompt
        assert sum(bool(alike[image] & tags) for tags in alike[prompts]) == 1


def test_processes_share_the_prompts(tmp_path):
    labelled = open_pairs(labelled_source(tmp_path))
    joint = stream(labelled, class_prompts=True).batch(2)
    parts = [stream(labelled, class_prompts=True, rank=rank, world=4).batch(2) for rank in range(4)]
    assert len({len(part.tokens) - len(part.pixels) for part in parts}) == 1  # as many each
    seen = {tuple(tags) for part in parts for tags in part.tags[len(part.pixels) :]}
    assert seen == {tuple(tags) for tags in joint.tags[6:]}


def test_captions_lose_words_and_prompts_do_not(tmp_path, pairs):
    labelled = open_pairs(labelled_source(tmp_path))
    plain = stream(pairs, labelled).batch(1)
    gaps = stream(pairs, labelled, augmentation=Augmentation(words=0.5)).batch(1)
    longest = min(plain.tokens.shape[1], gaps.tokens.shape[1])
    ends = [(batch.tokens == TOKENIZER.end_id).argmax(axis=1) for batch in (plain, gaps)]
    assert (ends[1][:3] <= ends[0][:3]).all() and (ends[1][:3] < ends[0][:3]).any()
    assert np.array_equal(plain.tokens[3:, :longest], gaps.tokens[3:, :longest])
    assert np.array_equal(plain.tags, gaps.tags) and np.array_equal(plain.pixels, gaps.pixels)


def test_an_epoch_shows_every_image_once(pairs):
    batches = stream(pairs)
    seen = np.concatenate([batches.batch(step).tags[:, 0] for step in (0, 1)])
    assert len(set(seen.tolist())) == len(pairs.pairs) == 12


def test_a_stream_resumes_where_it_stopped(pairs):
    whole = list(islice(stream(pairs).from_step(0), 5))
    late = list(islice(stream(pairs, workers=3).from_step(3), 2))
    for one, two in zip(whole[3:], late, strict=True):
        assert one.step == two.step
        assert np.array_equal(one.pixels, two.pixels)
        assert np.array_equal(one.tokens, two.tokens)


def test_processes_share_one_joint_batch(pairs):
    joint = stream(pairs).batch(4)
    parts = [stream(pairs, rank=rank, world=2).batch(4) for rank in (0, 1)]
    assert np.array_equal(joint.pixels[0::2], parts[0].pixels)
    assert np.array_equal(joint.pixels[1::2], parts[1].pixels)
    assert np.array_equal(joint.colours[1::2], parts[1].colours)


def test_a_broken_image_gives_its_place_to_another(tmp_path, caplog):
    files = {"good.png": encoded("red"), "bad.png": b"\x89PNG broken"}
    write_tar(tmp_path / "x.tar", files)
    lines = [json.dumps({"file": name, "captions": [name]}) for name in files]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    found = open_pairs(PairSource((tmp_path / "x.tar",), captions=tmp_path / "c.jsonl"))
    batches = stream(found)
    assert len(batches.batch(0).pixels) == 6
    assert len(batches.cache.broken) == 1 and caplog.text.count("bad.png") == 1


def test_nothing_but_broken_images_is_an_error(tmp_path):
    write_tar(tmp_path / "x.tar", {"bad.png": b"nothing"})
    (tmp_path / "c.jsonl").write_text('{"file": "bad.png", "captions": ["x"]}')
    found = open_pairs(PairSource((tmp_path / "x.tar",), captions=tmp_path / "c.jsonl"))
    with pytest.raises(ModelError, match="none of the 1 images"):
        stream(found).batch(0)


def test_sources_share_a_batch_by_weight(tmp_path):
    sets = []
    for number, weight in enumerate((1.0, 3.0)):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = captioned_source(folder)
        sets.append(open_pairs(PairSource(source.images, captions=source.captions, weight=weight)))
    tags = stream(*sets, batch_size=8).batch(0).tags[:, 0]
    owned = [{pairs.tags(pair, Caption(""))[0] for pair in pairs.pairs} for pairs in sets]
    assert [sum(tag in own for tag in tags.tolist()) for own in owned] == [2, 6]
    with pytest.raises(ModelError, match="2 sources"):
        stream(*sets, batch_size=1)


def test_the_cache_stops_at_its_limit(pairs):
    batches = stream(pairs, cache_bytes=3 * 24 * 20 * 3)
    batches.batch(0)
    assert batches.cache.used == 3 * 24 * 20 * 3


@pytest.mark.parametrize(
    ("weights", "total", "shares"),
    [
        ([1], 5, [5]),
        ([1, 1], 5, [3, 2]),
        ([0.36, 0.64], 192, [69, 123]),
        ([3, 3, 3] + [0.01] * 7, 10, [1] * 10),
        ([100, 1, 1, 1], 6, [3, 1, 1, 1]),
    ],
)
def test_every_source_has_a_share_and_all_make_the_batch(pairs, weights, total, shares):
    sets = [replace(pairs, weight=weight) for weight in weights]
    sources = stream(*sets, batch_size=total).batch(0).sources
    assert np.bincount(sources).tolist() == shares


def test_a_source_without_weight_is_refused(pairs):
    with pytest.raises(ModelError, match="weight is 0"):
        stream(replace(pairs, weight=0.0))


@pytest.mark.parametrize("workers", [0, 1, 6])
def test_batches_come_in_order_whatever_the_workers(pairs, workers):
    batches = stream(pairs, workers=workers).from_step(2)
    with closing(batches):
        assert [batch.step for batch in islice(batches, 9)] == list(range(2, 11))


def test_threads_share_the_cache_without_losing_count(pairs):
    batches = stream(pairs, cache_bytes=5 * 24 * 20 * 3)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(batches.batch, [0] * 16))
    assert batches.cache.used == 5 * 24 * 20 * 3
    assert all(np.array_equal(found[0].pixels, batch.pixels) for batch in found)


def test_images_are_upright_and_lie_on_white(tmp_path):
    turned = Image.new("RGB", (8, 4), "red")
    turned.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    folder = tmp_path / "images"
    folder.mkdir()
    turned.save(folder / "turned.png", exif=exif)
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(folder / "clear.png")
    turned, clear = cached(folder, "turned.png", "clear.png")
    assert turned.size == (4, 8) and turned.getpixel((3, 0)) == (0, 0, 0)
    assert clear.getpixel((0, 0)) == (255, 255, 255)


def test_a_large_image_is_kept_small(tmp_path):
    Image.new("RGB", (900, 600)).save(tmp_path / "large.jpg")
    [image] = cached(tmp_path, "large.jpg", side=100)
    assert image.size == (150, 100)


def cached(folder, *names, side=256):
    """What a cache makes of the images in a folder."""
    for name in names:
        (folder / name).with_suffix(".txt").write_text("words")
    found = open_pairs(PairSource((folder,)))
    cache, pairs = ImageCache(1 << 20, side), {pair.file: pair for pair in found.pairs}
    return [cache.get((0, number), found, pairs[name]) for number, name in enumerate(names)]


def test_shards_are_read_picture_by_picture(tmp_path):
    rng = np.random.default_rng(0)
    shards = []
    for shard in range(2):
        files = {}
        for number in range(12):
            file = io.BytesIO()
            noise = Image.fromarray(rng.integers(0, 256, (360, 360, 3), dtype=np.uint8))
            noise.save(file, "BMP")
            files |= {f"{number}.bmp": file.getvalue(), f"{number}.txt": b"noise"}
        shards.append(write_tar(tmp_path / f"{shard}.tar", files))
    whole = sum(path.stat().st_size for path in shards)
    tracemalloc.start()
    try:
        found = open_pairs(PairSource(tuple(shards)))
        _, opened = tracemalloc.get_traced_memory()
        batches = stream(found, batch_size=2, workers=1, cache_bytes=0)
        for step in range(12):
            batches.batch(step)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.pairs) == 24 and whole > 9e6
    assert opened < 0.1 * whole and most < 0.4 * whole
