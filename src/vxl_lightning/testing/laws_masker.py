"""The laws of maskers.

That batch order does not matter is no law here: one generator serves the whole batch, so a video's draw depends on
where it stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_lightning.maskers.base import Mask
from vxl_lightning.testing.case import (
    HEIGHT,
    WIDTH,
    Case,
    Law,
    NotApplicable,
    Outputs,
    expect,
    expect_equal,
    grid_of,
    without_side,
)
from vxl_lightning.testing.laws_common import COMMON
from vxl_lightning.tokens import VideoGrid

FRAMES = 8


@dataclass(frozen=True)
class MaskerInput:
    grid: VideoGrid
    seed: int = 0


class MaskerCase(Case):
    kind: ClassVar[str] = "masker"

    def of_lengths(self, lengths: Sequence[int], **kwargs: Any) -> MaskerInput:
        return MaskerInput(grid_of(lengths, **kwargs))

    def sample(self, seed: int = 0) -> MaskerInput:
        return self.of_lengths([FRAMES] * 3, seed=seed)

    def features_of(self, sample: MaskerInput) -> Tensor:
        return sample.grid.features

    def with_features(self, sample: MaskerInput, features: Tensor) -> MaskerInput:
        return replace(sample, grid=sample.grid.with_features(features))

    def without(self, sample: MaskerInput, need: str) -> MaskerInput:
        return replace(sample, grid=without_side(sample.grid, need))

    def mask(self, module: nn.Module, sample: MaskerInput) -> Mask:
        mask = module(sample.grid, torch.Generator().manual_seed(sample.seed))
        expect(isinstance(mask, Mask), f"forward returned {type(mask).__name__}, not Mask")
        return mask  # type: ignore[no-any-return]

    def call(self, module: nn.Module, sample: MaskerInput) -> Outputs:
        mask = self.mask(module, sample)
        return {n: v for n in ("hidden", "log_prob", "aux_loss") if (v := getattr(mask, n)) is not None}


def shapes_and_dtypes(case: MaskerCase) -> None:
    """``hidden [B, T, H, W]`` bool, ``log_prob [B, T, H, W]`` float and never above 0, ``aux_loss`` a scalar."""
    sample = case.sample()
    mask = case.mask(case.build(), sample)
    b, t, h, w, _ = sample.grid.shape
    expect(tuple(mask.hidden.shape) == (b, t, h, w), f"hidden must be {(b, t, h, w)}, got {tuple(mask.hidden.shape)}")
    expect(mask.hidden.dtype == torch.bool, f"hidden must be bool, got {mask.hidden.dtype}")
    if mask.log_prob is not None:
        got = mask.log_prob.detach()
        expect(tuple(got.shape) == (b, t, h, w), f"log_prob must be {(b, t, h, w)}, got {tuple(got.shape)}")
        expect(got.is_floating_point(), f"log_prob must be floating point, got {got.dtype}")
        expect(bool(torch.isfinite(got).all()), "log_prob is not finite")
        expect(
            bool((got <= 0).all()), f"log_prob holds {float(got.max()):g}; the logarithm of a probability is at most 0"
        )
    if mask.aux_loss is not None:
        expect(mask.aux_loss.ndim == 0, f"aux_loss must be a scalar, got {tuple(mask.aux_loss.shape)}")


def exact_count(case: MaskerCase) -> None:
    """Exactly ``num_hidden`` cells of every video are hidden, and that is ``ratio`` of them to half a cell."""
    module: Any = case.build()
    count = case.mask(module, case.sample()).hidden.flatten(1).sum(1).tolist()
    want = module.num_hidden(FRAMES, HEIGHT, WIDTH)
    expect(count == [want] * len(count), f"hides {count} cells of equally long videos, num_hidden announced {want}")
    ratio = getattr(module.config, "ratio", None)
    if ratio is not None:
        cells = FRAMES * HEIGHT * WIDTH
        expect(abs(want - ratio * cells) <= 0.5, f"ratio={ratio:g} of {cells} is {ratio * cells:g}, announced {want}")


def padding_never_hidden(case: MaskerCase) -> None:
    """Padding frames are never hidden, do not count, and what they hold changes nothing."""
    module: Any = case.build()
    lengths = [FRAMES, FRAMES - 3, FRAMES - 4]
    quiet = case.mask(module, case.of_lengths(lengths)).hidden
    loud = case.mask(module, case.of_lengths(lengths, padding=1e4)).hidden
    expect(torch.equal(quiet, loud), "the values in padding frames change the mask")
    for b, length in enumerate(lengths):
        expect(not bool(quiet[b, length:].any()), f"padding frames of video {b} are hidden")
        count, want = int(quiet[b].sum()), module.num_hidden(length, HEIGHT, WIDTH)
        expect(count == want, f"of a video of {length} frames {count} cells are hidden, announced {want}")


def varies_with_seed(case: MaskerCase) -> None:
    """Another seed gives another mask, in at least one of its tested settings; a masker without chance declares it."""
    for params in case.siblings or [case.params]:
        module = case.cls(case.cls.Config(**params), **case.runtime).eval()
        masks = [case.mask(module, replace(case.sample(), seed=seed)).hidden for seed in range(4)]
        if any(not torch.equal(masks[0], m) for m in masks[1:]):
            return
    expect(False, "four seeds gave the same mask: the generator is not used")


def short_and_odd_lengths(case: MaskerCase) -> None:
    """One frame and odd numbers of frames work, at the count announced for them."""
    module: Any = case.build()
    for frames in (1, 2, 3, 5):
        count = int(case.mask(module, case.of_lengths([frames])).hidden.sum())
        want = module.num_hidden(frames, HEIGHT, WIDTH)
        expect(count == want, f"of a video of {frames} frames {count} cells are hidden, announced {want}")


def bf16_agrees(case: MaskerCase) -> None:
    """Features in bfloat16 give the mask that the same values give in float32: scores are taken in float32."""
    if case.example.trainable:
        raise NotApplicable("a learned masker's own arithmetic may round differently")
    module, sample = case.build(), case.close()
    half = case.with_features(sample, sample.grid.features.to(torch.bfloat16))
    same = case.with_features(sample, half.grid.features.float())
    got, want = case.mask(module, half).hidden, case.mask(module, same).hidden
    expect_equal({"hidden": got}, {"hidden": want}, "between bfloat16 and float32")


MASKER_LAWS: tuple[Law, ...] = (
    shapes_and_dtypes,
    exact_count,
    padding_never_hidden,
    varies_with_seed,
    short_and_odd_lengths,
    bf16_agrees,
    *COMMON,
)
