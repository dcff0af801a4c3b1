"""The laws of encoders: fewer, for an encoder is frozen and often brings weights that a test cannot make."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_lightning.encoders.base import EncodedFrames
from vxl_lightning.testing.case import FLOAT_TOLERANCE, Case, Law, Outputs, expect, expect_equal, expect_finite
from vxl_lightning.testing.laws_common import deterministic, inputs_not_mutated


@dataclass(frozen=True)
class EncoderInput:
    frames: Tensor


class EncoderCase(Case):
    kind: ClassVar[str] = "encoder"

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        module: nn.Module = self.cls(self.cls.Config(**self.params))
        return module.eval()

    @property
    def frame_size(self) -> tuple[int, int]:
        height, width = self.example.frame_size
        return int(height), int(width)

    def sample(self, seed: int = 0) -> EncoderInput:
        generator = torch.Generator().manual_seed(seed)
        frames = torch.randint(256, (5, 3, *self.frame_size), generator=generator, dtype=torch.uint8)
        return EncoderInput(frames)

    def ties(self) -> EncoderInput:
        return EncoderInput(torch.full((2, 3, *self.frame_size), 128, dtype=torch.uint8))

    def features_of(self, sample: EncoderInput) -> Tensor:
        return sample.frames

    def with_features(self, sample: EncoderInput, features: Tensor) -> EncoderInput:
        return EncoderInput(features)

    def without(self, sample: EncoderInput, need: str) -> EncoderInput:
        return sample

    def call(self, module: nn.Module, sample: EncoderInput) -> Outputs:
        encoded = module(sample.frames)
        expect(isinstance(encoded, EncodedFrames), f"forward returned {type(encoded).__name__}, not EncodedFrames")
        side = {} if encoded.importance is None else {"importance": encoded.importance}
        return {"features": encoded.features, **side}


def shapes_and_dtypes(case: EncoderCase) -> None:
    """``features [T, *grid, dim]`` finite floats; ``importance [T, *grid]`` where ``gives_importance``; where that is
    a choice, ``Config.importance`` makes it."""
    module: Any = case.build()
    sample = case.sample()
    out = case.call(module, sample)
    want = (len(sample.frames), *module.grid)
    got = tuple(out["features"].shape)
    expect(got == (*want, module.dim), f"features must be {(*want, module.dim)}, got {got}")
    expect(out["features"].is_floating_point(), f"features must be floating point, got {out['features'].dtype}")
    expect_finite(out, "on ordinary frames")
    given = "importance" in out
    due = case.example.gives_importance and getattr(module.config, "importance", True)
    expect(given == due, f"gives_importance={case.example.gives_importance} and importance {due=}, but {given=}")
    if given:
        expect(
            tuple(out["importance"].shape) == want, f"importance must be {want}, got {tuple(out['importance'].shape)}"
        )


def frames_independent(case: EncoderCase) -> None:
    """A frame is encoded the same whichever frames are beside it."""
    module, sample = case.build(), case.sample()
    whole = case.call(module, sample)
    for cut in (slice(0, 1), slice(2, 5)):
        part = case.call(module, EncoderInput(sample.frames[cut]))
        want = {name: value[cut] for name, value in whole.items()}
        expect_equal(part, want, f"for frames {cut.start}..{cut.stop - 1} alone", FLOAT_TOLERANCE)


def wrong_frames_refused(case: EncoderCase) -> None:
    """Frames that are not uint8 RGB of ``frame_size`` are a ValueError."""
    module, frames = case.build(), case.sample().frames
    for what, wrong in (("float frames", frames.float()), ("frames of another size", frames[..., :-1])):
        try:
            module(wrong)
        except ValueError:
            continue
        expect(False, f"{what} were accepted")


def fingerprint_stable(case: EncoderCase) -> None:
    """Two encoders built alike have one fingerprint: cached features stay valid."""
    first: Any = case.build()
    second: Any = case.build()
    expect(first.fingerprint() == second.fingerprint(), "two encoders built alike have different fingerprints")


def frozen(case: EncoderCase) -> None:
    """What it returns carries no gradient."""
    out = case.call(case.build(), case.sample())
    expect(not any(v.requires_grad for v in out.values()), "the features require gradients; encoders are frozen here")


ENCODER_LAWS: tuple[Law, ...] = (
    shapes_and_dtypes,
    frames_independent,
    wrong_frames_refused,
    fingerprint_stable,
    frozen,
    deterministic,
    inputs_not_mutated,
)
