import math

import pytest
import torch
import torch.nn.functional as F

from fovea.search.clip.training.losses import alike, contrastive_loss, hidden_negatives


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
    own = torch.arange(4)
    hidden = hidden_negatives(tags, own, torch.zeros(4, dtype=torch.long), own)
    loss = contrastive_loss(images, texts, torch.tensor(5.0), own, hidden)
    assert float(loss) == pytest.approx(loss_by_hand(images, texts, 5.0, together), abs=1e-5)


def test_what_fills_a_row_up_is_shared_by_nobody():
    assert not alike(torch.full((3, 2), -1)).any()


def test_rows_share_whichever_column_a_tag_stands_in():
    tags = torch.randint(-1, 60, (40, 4), generator=torch.Generator().manual_seed(4))
    sets = [set(row) - {-1} for row in tags.tolist()]
    expected = [[i != j and bool(sets[i] & sets[j]) for j in range(40)] for i in range(40)]
    assert alike(tags).tolist() == expected and alike(tags).any() and not alike(tags).all()


def test_every_caption_of_an_image_is_a_positive_of_its_own():
    images, texts = unit(3, 8, 5), unit(7, 8, 6)
    owners = [0, 1, 2, 0, 0, 2, -1]  # the last belongs to nobody
    loss = contrastive_loss(images, texts, torch.tensor(6.0), torch.tensor(owners))
    expected = 0.0
    for image in range(3):
        own = [text for text in range(7) if owners[text] == image]
        others = [text for text in range(7) if owners[text] != image]
        for text in own:
            logits = 6 * images[image] @ texts[[text, *others]].T
            expected += float(F.cross_entropy(logits, torch.tensor(0))) / len(own)
            logits = 6 * texts[text] @ images.T
            expected += float(F.cross_entropy(logits, torch.tensor(image))) / len(own)
    assert float(loss) == pytest.approx(expected / 6, abs=1e-5)


def test_prompts_are_compared_with_the_images_of_their_source_alone():
    tags = torch.tensor([[1, 20], [2, 21], [3, 22], [1, 20], [20, 30], [31, 32]])
    owners = torch.tensor([0, 1, 2, 0, -1, -1])  # texts 4 and 5 are prompts of source 0
    sources = torch.tensor([0, 0, 1, 0, 0, 0])
    hidden = hidden_negatives(tags, owners, sources, torch.arange(3))
    assert hidden.tolist() == [
        [False, False, False, False, True, False],  # prompt 4 is its own class
        [False, False, False, False, False, False],
        [False, False, False, False, True, True],
    ]


def test_an_image_without_a_negative_has_a_gradient():
    images, texts = unit(2, 4, 7).requires_grad_(), unit(2, 4, 8)
    hidden = torch.tensor([[False, True], [True, False]])
    loss = contrastive_loss(images, texts, torch.tensor(9.0), torch.arange(2), hidden)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and torch.isfinite(images.grad).all()


def test_perfect_pairs_cost_nothing_at_a_low_temperature():
    rows = torch.eye(6)
    assert float(contrastive_loss(rows, rows, torch.tensor(100.0))) == pytest.approx(0, abs=1e-6)
