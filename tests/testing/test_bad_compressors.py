"""One wrong compressor a law: the kit finds each of them guilty of that law and of no other."""

import random
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vxl_lightning.compressors.base import GroupCompressor, Groups, StreamState, budget_tokens
from vxl_lightning.testing import check_plugin, laws
from vxl_lightning.tokens import VideoGrid, VideoTokens


class Good(GroupCompressor):
    """Keeps the first cells of every group."""

    frames_per_group = 4

    def tokens_per_group(self, height: int, width: int) -> int:
        return budget_tokens(4 * height * width, self.config.retention)

    def choose(self, groups: Groups, k: int) -> Tensor:
        return torch.arange(k).expand(len(groups.index), k)

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        k = self.tokens_per_group(h, w)
        kept = self.choose(groups, k)
        tokens = groups.features.flatten(1, 3).gather(1, kept[:, :, None].expand(-1, -1, d))
        source = torch.full((g, f * h * w), -1).scatter_(1, kept, torch.arange(k).expand(g, k))
        return self.finish(tokens), source.view(g, f, h, w)

    def finish(self, tokens: Tensor) -> Tensor:
        return tokens

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 16}]


class Contract(Good):
    api_version = "0"


class ShapesAndDtypes(Good):
    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        tokens = super().compress(grid, query)
        return replace(tokens, position=tokens.position.double())


class ExactBudget(Good):
    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        return super().num_tokens(num_frames, height, width) + (num_frames % 12 == 0)


class RetentionKept(Good):
    def tokens_per_group(self, height: int, width: int) -> int:
        return 2 * super().tokens_per_group(height, width)


class SourceConsistent(Good):
    def _compress(self, grid: VideoGrid, query: Tensor | None, first_group: int) -> VideoTokens:
        tokens = super()._compress(grid, query, first_group)
        return replace(tokens, span=tokens.span + 100)


class TokensInTimeOrder(Good):
    causal = False

    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        tokens = super().compress(grid, query)
        last = (tokens.lengths - 1)[:, None, None, None]
        back = torch.cat([p.flip(0) for p in torch.arange(len(tokens.features)).split(tokens.lengths.tolist())])
        source = torch.where(tokens.source >= 0, last - tokens.source, tokens.source)
        return VideoTokens(tokens.features[back], tokens.lengths, tokens.position[back], tokens.span[back], source)


class BatchOrder(Good):
    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        tokens = super().compress(grid, query)
        alone = len(tokens.lengths) == 1 or not grid.frame_mask.all()
        return tokens if alone else tokens.with_features(tokens.features + tokens.video[:, None])

    causal = False


class PaddingIgnored(Good):
    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        tokens = super().compress(grid, query)
        padding = grid.features[~grid.frame_mask]
        return tokens.with_features(tokens.features + padding.mean()) if padding.numel() else tokens


class ShortAndOddLengths(Good):
    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        if grid.shape[1] == 1:
            raise RuntimeError("stack expects a non-empty list")
        return super().compress(grid, query)


class Bf16Agrees(Good):
    def choose(self, groups: Groups, k: int) -> Tensor:
        size = groups.features.square().sum(-1)  # in the dtype of the features
        size = size.masked_fill(~groups.valid[:, :, None, None], -1).flatten(1)
        return size.argsort(dim=1, descending=True, stable=True)[:, :k].sort(1).values


class ChunkedEqualsWhole(Good):
    def step(self, chunk: VideoGrid, state: StreamState | None = None, **_: Any) -> tuple[VideoTokens, StreamState]:
        return self(chunk), StreamState()


class Deterministic(Good):
    def finish(self, tokens: Tensor) -> Tensor:
        return tokens + 1e-6 * torch.rand_like(tokens)


class InputsNotMutated(Good):
    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        assert grid.importance is not None
        grid.importance.zero_()
        return super().compress(grid, query)


class ConstantFeatures(Good):
    def finish(self, tokens: Tensor) -> Tensor:
        return tokens + 0 * (tokens / tokens.norm(dim=-1, keepdim=True)).detach()


class NanRefused(Good):
    def forward(self, grid: VideoGrid, query: Tensor | None = None) -> VideoTokens:
        return self.compress(grid, query)


class StateDictRoundTrip(Good):
    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.scale = 1 + 0.01 * random.random()

    def finish(self, tokens: Tensor) -> Tensor:
        return tokens * self.scale


class PickleRoundTrip(Good):
    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.rule = lambda tokens: tokens

    def finish(self, tokens: Tensor) -> Tensor:
        return self.rule(tokens)


class MetaDevice(Good):
    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.register_buffer("scale", torch.ones(dim), persistent=False)

    def finish(self, tokens: Tensor) -> Tensor:
        return tokens * self.scale.to(tokens.dtype)


class GradientsFinite(Good):
    trainable = True

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.used, self.unused = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def finish(self, tokens: Tensor) -> Tensor:
        return self.used(tokens)


class SideInputsRequired(Good):
    needs_importance = True

    def forward(self, grid: VideoGrid, query: Tensor | None = None) -> VideoTokens:
        return self.compress(grid.check(), query)


BAD = {
    "contract": Contract,
    "shapes_and_dtypes": ShapesAndDtypes,
    "exact_budget": ExactBudget,
    "retention_kept": RetentionKept,
    "source_consistent": SourceConsistent,
    "tokens_in_time_order": TokensInTimeOrder,
    "batch_order": BatchOrder,
    "padding_ignored": PaddingIgnored,
    "short_and_odd_lengths": ShortAndOddLengths,
    "bf16_agrees": Bf16Agrees,
    "chunked_equals_whole": ChunkedEqualsWhole,
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


def test_every_law_has_its_wrong_plugin() -> None:
    assert list(BAD) == list(laws("compressor"))


def test_the_plain_one_keeps_all() -> None:
    assert [r for r in check_plugin("compressor", Good) if not r.ok] == []


@pytest.mark.parametrize("law", BAD)
def test_guilty_of_one_law(law: str) -> None:
    results = check_plugin("compressor", BAD[law])
    assert {r.law for r in results if not r.ok} == {law}, [r for r in results if not r.ok]


class ZeroGradient(Good):
    """The square root's slope at zero is infinite."""

    def finish(self, tokens: Tensor) -> Tensor:
        return tokens / (tokens.square().sum(-1, keepdim=True).sqrt() + 1)


class Whole(Good):
    """Declares what it does not do."""

    needs_query = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Good.Config):
        pass

    def forward(self, grid: VideoGrid, query: Tensor | None = None) -> VideoTokens:
        return self.compress(grid.check(), query)


@pytest.mark.parametrize(("cls", "law"), [(ZeroGradient, "gradients_finite"), (Whole, "side_inputs_required")])
def test_other_ways_to_break_a_law(cls: type, law: str) -> None:
    assert [r.law for r in check_plugin("compressor", cls) if not r.ok] == [law]
