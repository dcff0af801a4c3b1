"""Shapes: told apart, anti-aliased, drawn where asked."""

from itertools import combinations

import pytest
import torch

from vxl_lightning.data.synth.shapes import COLOURS, HELD_OUT, SHAPES, draw_needle


def drawn(shape: str, colour: tuple[int, int, int] = (255, 255, 255), x: float = 0.5, y: float = 0.5) -> torch.Tensor:
    return draw_needle(torch.full((3, 128, 128), 90, dtype=torch.uint8), shape, colour, x, y, 0.15)


def test_every_two_shapes_differ() -> None:
    filled = {s: (drawn(s)[0] > 200).float() for s in SHAPES}
    for a, b in combinations(SHAPES, 2):
        overlap = (filled[a] * filled[b]).sum() / torch.maximum(filled[a], filled[b]).sum()
        assert overlap < 0.85, (a, b, float(overlap))


@pytest.mark.parametrize("shape", SHAPES)
def test_drawn_in_place_with_smooth_edges(shape: str) -> None:
    blank = torch.full((3, 128, 128), 90, dtype=torch.uint8)
    frame = draw_needle(blank, shape, COLOURS["red"], 0.25, 0.75, 0.15)
    assert bool((blank == 90).all()), "the frame given was drawn on"
    changed = (frame != blank).any(0).nonzero()
    centre = torch.tensor([0.75, 0.25]) * 128
    assert float((changed - centre).abs().max()) <= 0.15 * 128 + 1
    assert bool((frame == torch.tensor(COLOURS["red"], dtype=torch.uint8)[:, None, None]).all(0).any())
    assert len(frame[0].unique()) > 10, "edges are not anti-aliased"


def test_at_the_border_it_stays_whole() -> None:
    corner, middle = drawn("circle", x=0.0, y=1.0), drawn("circle")
    assert torch.equal((corner != 90).sum(), (middle != 90).sum())


def test_held_out_pairs_leave_every_shape_and_colour_to_training() -> None:
    assert len(HELD_OUT) == len(SHAPES)
    for colour in COLOURS:
        assert sum(c == colour for c, _ in HELD_OUT) < len(SHAPES)
    assert {c for c, _ in HELD_OUT} <= set(COLOURS) and {s for _, s in HELD_OUT} == set(SHAPES)
