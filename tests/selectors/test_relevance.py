"""What selectors by relevance share: scores stretched to [0, 1] for a choice."""

import torch

from vxl_lightning.selectors.relevance import unit_range


def test_scores_span_zero_to_one_in_float64() -> None:
    unit = unit_range(torch.tensor([-0.5, 0.5, 0.0]))
    assert unit.dtype == torch.float64
    torch.testing.assert_close(unit, torch.tensor([0, 1, 0.5], dtype=torch.float64))


def test_rounding_errors_are_not_stretched_to_peaks() -> None:
    noise = 1e-7 * torch.randn(100, generator=torch.Generator().manual_seed(0))
    # 0.300005 lies between two steps, so that the noise rounds either way.
    for value in (0.0, 0.3, 0.300005):
        assert unit_range(value + noise).eq(0).all()


def test_scores_within_a_rounding_error_tie() -> None:
    unit = unit_range(torch.tensor([0.5, 0.5 + 6e-8, 0.0, 1.0]))
    assert unit[0] == unit[1]


def test_no_gradient_passes() -> None:
    assert not unit_range(torch.rand(4, requires_grad=True)).requires_grad
