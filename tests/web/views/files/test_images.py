import re
from dataclasses import replace

import numpy as np
import pytest

from fovea.indexer.decoding import dates
from fovea.search.library.facts.dates import FILE_NAME, FILE_TIME
from fovea.search.query.likelihood import Background, default_labels
from fovea.search.query.measured import LabelSigns, Measured
from fovea.web.views import images
from places import CHECKOUT

SHOWN = LabelSigns(threshold=0.0, right=0.9, shown=1.0)


@pytest.mark.parametrize(
    "labels, count",
    [
        (SHOWN, 5),
        (replace(SHOWN, threshold=1.1), 0),
        (replace(SHOWN, right=0.5), 0),  # often wrong
        (None, 0),  # never measured
    ],
)
def test_an_image_lists_labels_that_were_measured_to_be_right(
    app, colour_library, monkeypatch, labels, count
):
    model = colour_library.model()
    rows = np.abs(np.random.default_rng(1).standard_normal((len(default_labels()), model.dim)))
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    signs = Measured(model.identity, (0.0,) * model.dim, labels=labels)
    Background(model.identity, vectors, 30.0, signs).save(colour_library.folder)
    if not count and (labels is None or not labels.are_shown):
        monkeypatch.setattr(images, "likeliest", None)  # nor is anything computed
    found = app.test_client().get("/api/images/1").json["labels"]
    assert len(found) == count
    shares = [label["probability"] for label in found]
    assert shares == sorted(shares, reverse=True)
    assert all(label["label"] in default_labels() for label in found)
    assert all(re.search("[\u4e00-\u9fff]", label["label_zh"]) for label in found)


@pytest.mark.parametrize("tag", sorted(dates.TAGS))
def test_the_page_has_words_for_where_a_date_is_from(app, colour_library, tag):
    with colour_library.transaction() as conn:
        conn.execute("UPDATE images SET taken_at = '2019-07', dated_by = ? WHERE id = 1", (tag,))
    found = app.test_client().get("/api/images/1").json
    assert (found["date"], found["date_source"]) == ("2019-07", tag)
    script = (CHECKOUT / "web" / "static" / "js" / "results" / "facts.js").read_text("utf-8")
    words = script.partition("const SOURCES = {")[2].partition("};")[0]
    assert f'"{re.sub("^(XMP|IPTC|PNG) ", "", tag)}"' in words
    assert f'"{FILE_NAME}"' in words and f'"{FILE_TIME}"' in words
