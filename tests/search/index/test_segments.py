"""Where images are in a run of embeddings, whether or not some are missing in between."""

import numpy as np
import pytest

from fovea.search.index.segments import Segment
from fovea.search.index.snapshot import Rows


@pytest.mark.parametrize(
    "image_ids",
    [
        [7],
        [5, 6, 7, 8, 9],
        [5, 6, 8, 9, 12],
        [9, 5, 7, 6, 8],
        [2**62, 2**62 + 1],
    ],
    ids=["one", "dense", "gaps", "unordered", "large"],
)
@pytest.mark.parametrize("wanted", [[], [7], [1, 5, 6, 8, 20], [-(2**62), 9, 2**62], [6, 6]])
def test_images_are_found_by_their_ids(image_ids, wanted):
    count = len(image_ids)
    rows = Rows(np.arange(1, count + 1), np.array(image_ids), np.zeros((count, 4), np.float16))
    segment = Segment.of(rows)
    expected = [(place, image_ids.index(w)) for place, w in enumerate(wanted) if w in image_ids]
    asked = np.array(wanted, np.int64)
    assert segment.places(asked).tolist() == [place for place, _ in expected]
    assert segment.positions(asked).tolist() == [position for _, position in expected]
    gone = segment.without([2])
    assert gone.places(asked).tolist() == [place for place, at in expected if at != 1]
