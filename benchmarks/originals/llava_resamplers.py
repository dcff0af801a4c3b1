"""The resamplers of the LLaVA family, as VidCom2's repository carries them: Perceiver and Q-Former."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import _einops
import torch
from _originals import Comparison, Repository, importing
from torch import Tensor, nn
from vxl_learned.perceiver import Perceiver

from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("xuyang-liu16/VidCom2", "944a17d14f4848ad080a65eab2b0711a760fa154", "Apache-2.0")
FOLDER = "llava/model/multimodal_resampler"
TOKENS, HEADS = 32, 8


def frames(shape: tuple[int, ...], seed: int) -> tuple[Tensor, int]:
    """``[T, H, W, D]``, every frame compressed alone, and the seed of the weights."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)), seed


def perceiver(features: Tensor, seed: int) -> Perceiver:
    torch.manual_seed(seed)
    _, h, w, d = features.shape
    config = Perceiver.Config(retention=TOKENS / (h * w), frames_per_group=1, latents=TOKENS, heads=HEADS)
    module: Perceiver = noisy(Perceiver(config, dim=d))
    return module


def noisy(module: Any) -> Any:
    for p in module.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.1)
    return module


def our_perceiver(sample: tuple[Tensor, int]) -> Tensor:
    features, seed = sample
    module = perceiver(features, seed)
    module.frame_encoding.data.zero_()  # theirs has none
    return module(VideoGrid.of(features[None])).features


def their_perceiver(folder: Path, sample: tuple[Tensor, int]) -> Tensor:
    features, seed = sample
    ours = perceiver(features, seed)
    stubs = {"einops": ModuleType("einops"), "einops_exts": ModuleType("einops_exts")}
    vars(stubs["einops"]).update(rearrange=_einops.rearrange, repeat=_einops.repeat)
    vars(stubs["einops_exts"]).update(rearrange_many=_einops.rearrange_many)
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        with importing(folder / FOLDER):
            import perceiver as original  # type: ignore[import-not-found]
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        sys.modules.pop("perceiver", None)
    args = SimpleNamespace(
        mm_perceiver_depth=3, mm_perceiver_latents=TOKENS, mm_perceiver_ff_mult=4, mm_perceiver_pretrained=None
    )
    theirs: nn.Module = original.PerceiverResampler(args, SimpleNamespace(hidden_size=features.shape[-1])).perceiver
    state = {"latents": ours.latents, "norm.weight": ours.norm.weight, "norm.bias": ours.norm.bias}
    for i, layer in enumerate(ours.layers):
        named = dict(layer.named_parameters())
        attention = {
            "norm_media.weight": named["norm_cells.weight"],
            "norm_media.bias": named["norm_cells.bias"],
            "norm_latents.weight": named["norm_latents.weight"],
            "norm_latents.bias": named["norm_latents.bias"],
            "to_q.weight": named["attention.query.weight"],
            "to_kv.weight": torch.cat([named["attention.key.weight"], named["attention.value.weight"]]),
            "to_out.weight": named["attention.out.weight"],
        }
        state |= {f"layers.{i}.0.{k}": v for k, v in attention.items()}
        state |= {f"layers.{i}.1.{k.removeprefix('feed.')}": v for k, v in named.items() if k.startswith("feed.")}
    theirs.load_state_dict(state)
    out: Tensor = theirs(features.flatten(1, 2)[:, None, None])
    return out.flatten(0, 2)


COMPARISONS: Sequence[Comparison] = (
    Comparison(
        kind="compressor",
        method="perceiver",
        what="three layers, 32 latents, frame by frame, the same weights",
        shapes=((3, 8, 8, 64), (2, 12, 8, 96), (5, 7, 9, 32)),
        make=frames,
        ours=our_perceiver,
        theirs=their_perceiver,
    ),
)
