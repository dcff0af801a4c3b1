"""Compressors one after another, as one compressor."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vxl_lightning import registry
from vxl_lightning.compressors.base import GroupCompressor, Groups


@runtime_checkable
class GivesGrid(Protocol):
    """A group compressor whose tokens are a grid again: ``rows x cols`` of each group, in raster order."""

    def block_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a group's tokens, for frames of this size."""


class Chain(GroupCompressor):
    """Each stage compresses what the one before gave, taken as frames: the tokens of a group are one frame.

    So every stage is a group compressor, and every stage but the last gives a grid (`GivesGrid`: ``none``, ``pool``,
    ``dts`` do). A group of the chain is as many frames as the product of its stages' groups. ``retention`` is the
    chain's own: the last stage gets what the earlier ones leave over, so that the whole can be swept. A token carries
    the cells of all tokens that went into it; ``importance`` and ``motion`` of a token are the means over its cells.
    The traits ``trainable``, ``needs_query`` and ``needs_importance`` of an instance are those of its stages.
    """

    trainable = True
    origin = "Composition of other compressors; written here from scratch"

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupCompressor.Config):
        stages: list[Any] = field(
            default_factory=lambda: [{"name": "pool", "retention": 0.25, "frames_per_group": 1}, "dts"]
        )
        """Names, or mappings of a name and its parameters, in order. The last one states no retention."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if len(self.stages) < 2:
                raise ValueError(f"chain.stages={self.stages} must have at least 2 stages")
            for spec in self.stages:
                if not isinstance(_name(spec), str):
                    raise ValueError(f"chain.stages: {spec!r} is neither a name nor a mapping such as {{name: dts}}")
            if isinstance(self.stages[-1], Mapping) and "retention" in self.stages[-1]:
                raise ValueError(
                    f"chain.stages: the last stage states retention={self.stages[-1]['retention']}, which follows "
                    "from the chain's own; remove it and set compressor.retention"
                )

        @property
        def parts(self) -> list[Any]:
            return list(self.stages)

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        *first, last = config.stages
        stages: list[GroupCompressor] = []
        for spec in first:
            stage = _build(spec, stages[-1].out_dim if stages else dim)
            if not isinstance(stage, GivesGrid):
                raise ValueError(
                    f"chain.stages: the tokens of {_name(spec)!r} are no grid, so it can only come last; "
                    "before the last stage take none, pool or dts"
                )
            stages.append(stage)
        kept = math.prod(s.config.retention for s in stages)
        if config.retention > kept * (1 + 1e-9):
            raise ValueError(
                f"retention={config.retention:.6g} is more than the {kept:.6g} that the stages before the last keep; "
                "raise theirs or lower it"
            )
        rest = {"name": last} if isinstance(last, str) else dict(last)
        stages.append(_build({**rest, "retention": min(1.0, config.retention / kept)}, stages[-1].out_dim))
        self.stages = nn.ModuleList(stages)
        self.frames_per_group = math.prod(s.group_size for s in stages)
        # On the instance, where they shadow the class's.
        for trait in ("trainable", "needs_query", "needs_importance"):
            setattr(self, trait, any(getattr(s, trait) for s in stages))

    @property
    def out_dim(self) -> int:
        return self._ordered()[-1].out_dim

    def tokens_per_group(self, height: int, width: int) -> int:
        *first, last = self._ordered()
        for stage in first:
            height, width = _grid(stage, height, width)
        return last.tokens_per_group(height, width)

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, _ = groups.features.shape
        carrier = torch.arange(f * h * w, device=groups.features.device).expand(g, -1)  # cell -> cell of this stage
        *first, last = self._ordered()
        frames = groups
        for stage in first:
            parts = _split(frames, stage.group_size)
            tokens, source = stage.compress_groups(parts)
            carrier = _compose(carrier, _count_through(source, g, tokens.shape[1]))
            frames = _as_frames(frames, parts, tokens, source, _grid(stage, *frames.features.shape[2:4]))
        tokens, source = last.compress_groups(frames)
        return tokens, _compose(carrier, source.reshape(g, -1)).view(g, f, h, w)

    def _ordered(self) -> list[GroupCompressor]:
        return [s for s in self.stages if isinstance(s, GroupCompressor)]

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        halves = {"name": "pool", "retention": 0.5, "frames_per_group": 2}
        return [
            {"retention": 1 / 16},
            {"retention": 1 / 32, "stages": [halves, {"name": "dts", "reduction": "saliency", "frames_per_group": 3}]},
        ]


def _name(spec: Any) -> Any:
    return spec.get("name") if isinstance(spec, Mapping) else spec


def _build(spec: Any, dim: int) -> GroupCompressor:
    stage = registry.build("compressor", spec, dim=dim)
    if not isinstance(stage, GroupCompressor):
        raise ValueError(
            f"chain.stages: {_name(spec)!r} does not work group by group; take a stage that does, such as pool"
        )
    return stage


def _grid(stage: GroupCompressor, height: int, width: int) -> tuple[int, int]:
    assert isinstance(stage, GivesGrid)
    return stage.block_grid(height, width)


def _split(groups: Groups, size: int) -> Groups:
    """Each group as its successive sub-groups of ``size`` frames."""
    g, f = groups.valid.shape
    count = f // size

    def split(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.unflatten(1, (count, size)).flatten(0, 1)

    features, valid = split(groups.features), split(groups.valid)
    assert features is not None and valid is not None
    # A sub-group past the video's end is all copies; it is compressed like any other and its token never used.
    valid = valid | ~valid[:, :1]
    index = groups.index[:, None] * count + torch.arange(count, device=groups.index.device)
    return Groups(
        features=features,
        index=index.flatten(),
        valid=valid,
        importance=split(groups.importance),
        motion=split(groups.motion),
        query=None if groups.query is None else groups.query.repeat_interleave(count, 0),
        video=groups.video.repeat_interleave(count),
    )


def _as_frames(before: Groups, parts: Groups, tokens: Tensor, source: Tensor, grid: tuple[int, int]) -> Groups:
    """The tokens of every sub-group as one frame; past a video's end its last real one is repeated."""
    g: int = len(before.index)
    valid = before.valid[:, :: parts.valid.shape[1]]
    slots = valid.shape[1]
    slot = torch.minimum(torch.arange(slots, device=valid.device)[None], valid.sum(1, keepdim=True) - 1)
    row = torch.arange(g, device=valid.device)[:, None]

    def frames(x: Tensor) -> Tensor:
        return x.reshape(g, slots, *grid, *x.shape[2:])[row, slot]

    def side(x: Tensor | None) -> Tensor | None:
        return None if x is None else frames(_mean_carried(x, source, parts.valid, tokens.shape[1]))

    return replace(
        before, features=frames(tokens), valid=valid, importance=side(parts.importance), motion=side(parts.motion)
    )


def _mean_carried(side: Tensor, source: Tensor, valid: Tensor, count: int) -> Tensor:
    """``[G, count]`` mean of ``side [G, F, H, W]`` over the real cells that each token carries."""
    real = (source >= 0) & valid[:, :, None, None]
    token = source.clamp(min=0).flatten(1)
    total = side.new_zeros(len(side), count).scatter_add(1, token, (side * real).flatten(1))
    cells = side.new_zeros(len(side), count).scatter_add(1, token, real.to(side.dtype).flatten(1))
    return total / cells.clamp(min=1)


def _count_through(source: Tensor, groups: int, tokens: int) -> Tensor:
    """Tokens of a group's sub-groups counted on: ``[groups, cells]`` from ``source [groups * n, F, H, W]``."""
    local = source.reshape(groups, -1, source[0].numel())
    first = torch.arange(local.shape[1], device=source.device)[:, None] * tokens
    return torch.where(local >= 0, local + first, local).flatten(1)


def _compose(carrier: Tensor, source: Tensor) -> Tensor:
    """Where ``carrier [G, cells]`` leads when its targets are carried on by ``source [G, targets]``; -1 stays."""
    return torch.where(carrier >= 0, source.gather(1, carrier.clamp(min=0)), carrier)
