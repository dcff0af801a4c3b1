"""What the laws run on: one plugin class with one set of parameters, and tiny inputs made for it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_lightning.tokens import VideoGrid

HEIGHT, WIDTH, DIM = 4, 4, 32
"""The grid that ``get_test_params`` is written for."""

FLOAT_TOLERANCE = 1e-4
"""Largest difference, as a share of the largest value, between two orders of the same float32 arithmetic."""

BF16_TOLERANCE = 0.05
"""Largest difference, as a share of the largest value, between bfloat16 and float32."""

Outputs = dict[str, Tensor]
"""What a plugin returned, as named tensors."""

Law = Callable[[Any], None]
"""Takes a `Case`; raises `LawBroken`, or whatever the plugin raises, where the law does not hold."""


class LawBroken(AssertionError):
    """A plugin does not keep a law; the message says what was seen and what was due."""


class NotApplicable(Exception):
    """A law says nothing about this plugin, for the reason given."""


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise LawBroken(message)


def expect_equal(got: Mapping[str, Tensor], want: Mapping[str, Tensor], what: str, tolerance: float = 0.0) -> None:
    """Hold two outputs against each other: integers and booleans exactly, floats to ``tolerance``.

    Args:
        got: from the run under test.
        want: from the reference run.
        what: completes "... differs ", such as "between two identical calls".
        tolerance: as a share of the largest magnitude in the reference.

    Raises:
        LawBroken: a name, shape, dtype or value differs.
    """
    expect(got.keys() == want.keys(), f"returned {sorted(got)} and {sorted(want)} {what}")
    for name, reference in want.items():
        value = got[name]
        expect(value.shape == reference.shape, f"{name} {what}: {tuple(value.shape)} against {tuple(reference.shape)}")
        if not value.numel():
            continue
        if not reference.is_floating_point():
            wrong = int((value != reference).sum())
            expect(wrong == 0, f"{name} differs {what} in {wrong} of {value.numel()} places")
            continue
        a, b = value.detach().double(), reference.detach().double()
        expect(
            bool((torch.isfinite(a) == torch.isfinite(b)).all()), f"{name} differs {what}: not finite in one of them"
        )
        gap = float((a - b).abs().nan_to_num(0.0).max())
        limit = tolerance * max(float(b.abs().nan_to_num(0.0, posinf=0.0, neginf=0.0).max()), 1e-6)
        expect(gap <= limit, f"{name} differs {what} by {gap:.3g}, allowed {limit:.3g}")


def expect_finite(outputs: Mapping[str, Tensor], what: str) -> None:
    for name, value in outputs.items():
        if value.is_floating_point():
            expect(bool(torch.isfinite(value).all()), f"{name} has NaN or infinite values {what}")


def tensors_in(value: Any, name: str = "") -> Outputs:
    """All tensors of a value made of dataclasses, tuples, lists and dicts, by path."""
    if isinstance(value, Tensor):
        return {name or "value": value}
    if is_dataclass(value) and not isinstance(value, type):
        inner: list[tuple[str, Any]] = [(f.name, getattr(value, f.name)) for f in fields(value)]
    elif isinstance(value, Mapping):
        inner = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        inner = [(str(i), v) for i, v in enumerate(value)]
    else:
        return {}
    found: Outputs = {}
    for key, part in inner:
        found |= tensors_in(part, f"{name}.{key}" if name else key)
    return found


@dataclass(frozen=True)
class Case(ABC):
    """A plugin class with one set of ``Config`` parameters.

    Attributes:
        cls: the class under test.
        params: keyword arguments of its ``Config``.
        siblings: all sets of parameters it is tested with.
    """

    cls: Any
    params: Mapping[str, Any]
    siblings: Sequence[Mapping[str, Any]] = ()

    kind: ClassVar[str]

    def build(self, seed: int = 0) -> nn.Module:
        """An instance in evaluation mode, a function of the seed alone.

        Small noise is added to its parameters: a method that starts as the identity would otherwise keep laws that
        it breaks once trained.
        """
        torch.manual_seed(seed)
        module: nn.Module = self.cls(self.cls.Config(**self.params), **self.runtime)
        for p in module.parameters():
            if p.is_floating_point() and not p.is_meta:
                p.data.add_(torch.randn_like(p), alpha=0.05)
        return module.eval()

    @cached_property
    def example(self) -> Any:
        """One instance to read traits from: where the config decides a trait, it is set on the instance."""
        return self.build()

    @property
    def runtime(self) -> dict[str, Any]:
        return {"dim": DIM}

    @abstractmethod
    def sample(self, seed: int = 0) -> Any:
        """Ordinary inputs, a function of the seed alone: a dataclass of tensors."""

    @abstractmethod
    def features_of(self, sample: Any) -> Tensor:
        """The features in a sample."""

    @abstractmethod
    def with_features(self, sample: Any, features: Tensor) -> Any:
        """The same sample with other features."""

    @abstractmethod
    def call(self, module: nn.Module, sample: Any) -> Outputs:
        """Run the plugin as its contract says."""

    @abstractmethod
    def without(self, sample: Any, need: str) -> Any:
        """The same sample without its ``query``, ``importance``, ``motion`` or ``time``."""

    def with_params(self, params: Mapping[str, Any]) -> "Case":
        return replace(self, params=params)

    def constant(self, value: float) -> Any:
        """A sample whose features are all the same."""
        sample = self.sample()
        return self.with_features(sample, torch.full_like(self.features_of(sample), value))

    def close(self) -> Any:
        """A sample whose vectors differ little from one another, as an encoder's do: low precision confuses them."""
        sample = self.sample()
        features = self.features_of(sample)
        shared = torch.randn(features.shape[-1], generator=torch.Generator().manual_seed(6))
        return self.with_features(sample, 4 * shared + features / 4)

    def ties(self) -> Any:
        """A sample made of three distinct vectors, so that most scores tie."""
        sample = self.sample()
        features = self.features_of(sample)
        generator = torch.Generator().manual_seed(5)
        vectors = torch.randn(3, features.shape[-1], generator=generator)
        return self.with_features(sample, vectors[torch.randint(3, features.shape[:-1], generator=generator)])


def grid_of(lengths: Sequence[int], seed: int = 0, padding: float = 0.0, frames: int | None = None) -> VideoGrid:
    """A batch of videos of these lengths at 2 frames a second, with importance and motion.

    What a video holds depends on the seed and its index alone, not on the other videos' lengths.

    Args:
        lengths: valid frames of each video.
        seed: of the content.
        padding: value that fills the padding frames, side information included.
        frames: T; the longest video where not given.
    """
    total = frames or max(lengths)
    features = torch.full((len(lengths), total, HEIGHT, WIDTH, DIM), padding)
    side = torch.full((2, len(lengths), total, HEIGHT, WIDTH), padding)
    times = torch.full((len(lengths), total), padding)
    for i, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(1000 * seed + i)
        content = torch.randn(64, HEIGHT, WIDTH, DIM + 2, generator=generator)[:length]
        features[i, :length] = content[..., :DIM]
        side[:, i, :length] = content[..., DIM:].abs().movedim(-1, 0)
        times[i, :length] = 10.0 * i + 0.5 * torch.arange(length)
    mask = torch.arange(total)[None] < torch.tensor(lengths)[:, None]
    return VideoGrid(features, times, mask, importance=side[0], motion=side[1])


def without_side(grid: VideoGrid, name: str) -> VideoGrid:
    """The grid without its ``importance`` or ``motion``."""
    assert name in ("importance", "motion")
    return replace(grid, importance=None) if name == "importance" else replace(grid, motion=None)
