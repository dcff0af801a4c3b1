"""One wrong masker a law: the kit finds each of them guilty of that law and of no other."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.testing import check_plugin, laws
from vxl_lightning.tokens import VideoGrid


class Good(Masker):
    """Hides cells at random; ``aux`` lets a subclass add a loss."""

    def counts(self, grid: VideoGrid) -> list[int]:
        _, _, h, w, _ = grid.shape
        return [self.num_hidden(n, h, w) for n in grid.num_frames.tolist()]

    def score(self, grid: VideoGrid, generator: torch.Generator) -> Tensor:
        return torch.rand(grid.shape[:4], generator=generator)

    def aux(self, grid: VideoGrid) -> Tensor | None:
        return None

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        return Mask(hide_top(self.score(grid, generator), grid, self.counts(grid)), aux_loss=self.aux(grid))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"ratio": 0.6}]


class Contract(Good):
    Config = dict  # type: ignore[assignment]


class ShapesAndDtypes(Good):
    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        return Mask(super().mask(grid, generator).hidden.byte())


class ExactCount(Good):
    def counts(self, grid: VideoGrid) -> list[int]:
        first, *rest = super().counts(grid)
        return [first + (grid.shape[1] == 8 and bool(grid.frame_mask.all())), *rest]


class PaddingNeverHidden(Good):
    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        return super().mask(VideoGrid.of(grid.features, grid.times), generator)


class VariesWithSeed(Good):
    def score(self, grid: VideoGrid, generator: torch.Generator) -> Tensor:
        return grid.features.float().sum(-1)


class ShortAndOddLengths(Good):
    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        if grid.shape[1] == 1:
            raise IndexError("no frame before the first")
        return super().mask(grid, generator)


class Bf16Agrees(Good):
    def score(self, grid: VideoGrid, generator: torch.Generator) -> Tensor:
        return grid.features.square().sum(-1) + super().score(grid, generator)


class Deterministic(Good):
    def aux(self, grid: VideoGrid) -> Tensor:
        return 1 + 1e-6 * torch.rand(())


class InputsNotMutated(Good):
    def score(self, grid: VideoGrid, generator: torch.Generator) -> Tensor:
        assert grid.motion is not None
        grid.motion.zero_()
        return super().score(grid, generator)


class ConstantFeatures(Good):
    def aux(self, grid: VideoGrid) -> Tensor:
        return grid.features.detach().div(grid.features.detach().norm()).mean()


class NanRefused(Good):
    def forward(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        return self.mask(grid, generator)


class StateDictRoundTrip(Good):
    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.scale = random.random()

    def aux(self, grid: VideoGrid) -> Tensor:
        return torch.tensor(self.scale)


class PickleRoundTrip(Good):
    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.rule = lambda: 1.0


class MetaDevice(Good):
    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def aux(self, grid: VideoGrid) -> Tensor:
        return self.scale * 2


class GradientsFinite(Good):
    trainable = True

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.scorer = nn.Linear(dim, 1)


class SideInputsRequired(Good):
    needs_motion = True

    def forward(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        return self.mask(grid.check(), generator)


BAD = {
    "contract": Contract,
    "shapes_and_dtypes": ShapesAndDtypes,
    "exact_count": ExactCount,
    "padding_never_hidden": PaddingNeverHidden,
    "varies_with_seed": VariesWithSeed,
    "short_and_odd_lengths": ShortAndOddLengths,
    "bf16_agrees": Bf16Agrees,
    "deterministic": Deterministic,
    "inputs_not_mutated": InputsNotMutated,
    "constant_features": ConstantFeatures,
    "nan_refused": NanRefused,
    "state_dict_round_trip": StateDictRoundTrip,
    "pickle_round_trip": PickleRoundTrip,
    "meta_device": MetaDevice,
    "gradients_finite": GradientsFinite,
    "side_inputs_required": SideInputsRequired,
}


class OneNumberAVideo(Good):
    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        return Mask(super().mask(grid, generator).hidden, log_prob=torch.full(grid.shape[:1], -1.0))


class NoLogarithm(Good):
    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        return Mask(super().mask(grid, generator).hidden, log_prob=torch.full(grid.shape[:4], 0.5))


def test_every_law_has_its_wrong_plugin() -> None:
    assert list(BAD) == list(laws("masker"))


def test_the_plain_one_keeps_all() -> None:
    assert [r for r in check_plugin("masker", Good) if not r.ok] == []


@pytest.mark.parametrize("law", BAD)
def test_guilty_of_one_law(law: str) -> None:
    results = check_plugin("masker", BAD[law])
    assert {r.law for r in results if not r.ok} == {law}, [r for r in results if not r.ok]


@pytest.mark.parametrize(
    ("wrong", "seen"), [(OneNumberAVideo, "log_prob must be (3, 8, 4, 4), got (3,)"), (NoLogarithm, "holds 0.5")]
)
def test_log_prob_is_a_logarithm_for_every_cell(wrong: type[Masker], seen: str) -> None:
    (broken,) = [r for r in check_plugin("masker", wrong) if not r.ok]
    assert broken.law == "shapes_and_dtypes" and seen in broken.detail
