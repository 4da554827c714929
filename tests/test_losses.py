import math

import pytest
import torch
import torch.nn.functional as F

from search.clip.losses import alike, contrastive_loss


def unit(n, d, seed):
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def loss_by_hand(images, texts, scale, together):
    """Sum the n positives against their negatives, one pair at a time."""
    n, total = len(images), 0.0
    for rows, columns in ((images, texts), (texts, images)):
        for i in range(n):
            others = [j for j in range(n) if j == i or not together[i][j]]
            terms = [math.exp(scale * float(rows[i] @ columns[j])) for j in others]
            total -= math.log(math.exp(scale * float(rows[i] @ columns[i])) / sum(terms))
    return total / (2 * n)


def test_every_pair_off_the_diagonal_is_a_negative():
    images, texts = unit(5, 8, 0), unit(5, 8, 1)
    nobody = [[False] * 5] * 5
    loss = contrastive_loss(images, texts, torch.tensor(7.0))
    assert float(loss) == pytest.approx(loss_by_hand(images, texts, 7.0, nobody), abs=1e-5)


def test_pairs_that_share_a_label_or_a_caption_are_not_negatives():
    images, texts = unit(4, 8, 2), unit(4, 8, 3)
    tags = torch.tensor(
        [[0, 5, 11, 9, 9], [1, 12, 5, -1, -1], [2, 13, -1, -1, -1], [3, 14, 8, 11, -1]]
    )
    together = [[False] * 4 for _ in range(4)]
    for i, j in ((0, 1), (1, 0), (0, 3), (3, 0)):
        together[i][j] = True
    assert alike(tags).tolist() == together
    loss = contrastive_loss(images, texts, torch.tensor(5.0), tags)
    assert float(loss) == pytest.approx(loss_by_hand(images, texts, 5.0, together), abs=1e-5)


def test_what_fills_a_row_up_is_shared_by_nobody():
    assert not alike(torch.full((3, 2), -1)).any()


def test_rows_share_whichever_column_a_tag_stands_in():
    tags = torch.randint(-1, 60, (40, 4), generator=torch.Generator().manual_seed(4))
    sets = [set(row) - {-1} for row in tags.tolist()]
    expected = [[i != j and bool(sets[i] & sets[j]) for j in range(40)] for i in range(40)]
    assert alike(tags).tolist() == expected and alike(tags).any() and not alike(tags).all()


def test_perfect_pairs_cost_nothing_at_a_low_temperature():
    rows = torch.eye(6)
    assert float(contrastive_loss(rows, rows, torch.tensor(100.0))) == pytest.approx(0, abs=1e-6)
