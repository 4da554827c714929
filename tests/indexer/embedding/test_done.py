import random

import numpy as np
import pytest

from fovea.indexer.embedding import done
from fovea.indexer.embedding.done import Done


@pytest.mark.parametrize("largest", [64, 1 << 24])
def test_ids_are_found_and_each_is_sorted_a_few_times(monkeypatch, largest):
    monkeypatch.setattr(done, "RECENT", 8)
    monkeypatch.setattr(done, "LARGEST", largest)
    moved = 0
    concatenate = np.concatenate

    def counting(runs):
        nonlocal moved
        moved += sum(map(len, runs))
        return concatenate(runs)

    monkeypatch.setattr(np, "concatenate", counting)
    ids = [random.Random(number).randbytes(15) + bytes([number % 3]) for number in range(2060)]
    found = Done(ids[::2])
    assert all(one in found for one in ids[::2])
    assert not any(one in found for one in ids[1::2])
    assert moved <= 1030 * 8  # sorting all of them anew each time would move 66,000
    lengths = [len(run) for run in found._runs]
    assert lengths == sorted(lengths, reverse=True) and max(lengths) <= largest
    assert len(lengths) <= 1030 // min(largest, 1024) + 7
