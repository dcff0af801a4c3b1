"""What is taken out is gone, what is put in stands in order, and padding stays where it was."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vxl_lightning.hub.shorten import margins, nearest, shorten


@st.composite
def batches(draw):
    """A mask padded on one side, places that go, and places where tokens come to stand among them."""
    length = draw(st.integers(4, 12))
    left = draw(st.booleans())
    rows = draw(st.integers(1, 3))
    mask, gone, stands = [], [], []
    for row in range(rows):
        pad = 0 if row == 0 and rows > 1 else draw(st.integers(0, length - 2))
        real = list(range(pad, length)) if left else list(range(length - pad))
        mask.append([int(i in real) for i in range(length)])
        begin = draw(st.integers(0, len(real) - 1))
        out = real[begin : draw(st.integers(begin, len(real) - 1))]
        gone.append(torch.tensor(out, dtype=torch.long))
        put = draw(st.lists(st.sampled_from(out), max_size=6)) if out else []
        stands.append(torch.tensor(put, dtype=torch.long))
    return torch.tensor(mask), gone, stands


@settings(max_examples=150, deadline=None)
@given(batches())
def test_every_row_is_what_stayed_and_what_came_in_the_order_of_places(batch):
    mask, gone, stands = batch
    short = shorten(mask, gone, stands)
    side, margin = margins(mask)
    count = 0
    for row in range(len(mask)):
        real = [i for i in range(mask.shape[1]) if mask[row, i] and i not in gone[row].tolist()]
        order = sorted([(place, 0, -1) for place in real] + [(int(p), 1, count + i) for i, p in enumerate(stands[row])])
        seen = short.mask[row]
        assert short.place[row, seen].tolist() == [place for place, _, _ in order]
        assert short.token[row, seen].tolist() == [token for _, _, token in order]
        assert bool((short.token[row, ~seen] == -1).all())
        ends = seen if side else seen.flip(0)
        assert bool((ends[1:] >= ends[:-1]).all()), "padding is on one side"
        count += len(stands[row])
    longest = max(int(short.mask[row].sum()) for row in range(len(mask)))
    assert short.mask.shape[1] == longest + int(margin.min())


@settings(max_examples=50, deadline=None)
@given(batches())
def test_where_all_comes_back_nothing_changes(batch):
    mask, gone, _ = batch
    short = shorten(mask, gone, gone)
    length = mask.shape[1]
    assert torch.equal(short.place, torch.arange(length).expand_as(mask)) and torch.equal(short.mask, mask.bool())
    features = torch.randn(*mask.shape, 3)
    tokens = torch.cat([features[row, out] for row, out in enumerate(gone)])
    assert torch.equal(short.filled(features, tokens), features)


def test_a_place_that_was_masked_between_others_stays_masked():
    mask = torch.tensor([[0, 1, 1, 0, 1, 1]])
    short = shorten(mask, [torch.tensor([2])], [torch.tensor([], dtype=torch.long)])
    assert short.place.tolist() == [[0, 1, 3, 4, 5]] and short.mask.tolist() == [[False, True, False, True, True]]


def test_padding_on_the_right_stays_on_the_right():
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    short = shorten(mask, [torch.tensor([1, 2]), torch.tensor([0])], [torch.tensor([2]), torch.tensor([0])])
    assert short.place.tolist() == [[0, 2, 3, 4], [0, 1, 2, 3]]
    assert short.mask.tolist() == [[True] * 4, [True, True, True, False]]


@pytest.mark.parametrize(
    ("centroid", "cell"), [((0, 0, 0), 0), ((0.5, 0.5, 0.5), 0), ((1.0, 0, 2.0), 8), ((0.51, 1, 0), 9), ((9, 9, 9), 11)]
)
def test_a_token_stands_at_the_nearest_cell_and_at_the_earlier_of_two(centroid, cell):
    assert nearest(torch.tensor([centroid], dtype=torch.float32), (2, 2, 3)).tolist() == [cell]
