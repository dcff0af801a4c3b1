"""The resamplers of the LLaVA family, as VidCom2's repository carries them: Perceiver and Q-Former."""

import ast
import math
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import _einops
import torch
from _originals import Comparison, Repository, importing
from torch import Tensor, nn
from vxl_learned.perceiver import Perceiver
from vxl_learned.q_former import QFormer

from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("xuyang-liu16/VidCom2", "944a17d14f4848ad080a65eab2b0711a760fa154", "Apache-2.0")
FOLDER = "llava/model/multimodal_resampler"
TOKENS, HEADS = 32, 8


def frames(shape: tuple[int, ...], seed: int) -> tuple[Tensor, int]:
    """``[T, H, W, D]``, every frame compressed alone, and the seed of the weights."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)), seed


@lru_cache(maxsize=1)
def perceiver(features: Tensor, seed: int) -> Perceiver:
    torch.manual_seed(seed)
    _, h, w, d = features.shape
    config = Perceiver.Config(retention=TOKENS / (h * w), frames_per_group=1, latents=TOKENS, heads=HEADS)
    module: Perceiver = noisy(Perceiver(config, dim=d))
    module.frame_encoding.data.zero_()  # theirs has none
    return module


def noisy(module: Any) -> Any:
    for p in module.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.1)
    return module


@torch.no_grad()
def our_perceiver(sample: tuple[Tensor, int]) -> Tensor:
    features, seed = sample
    return perceiver(features, seed)(VideoGrid.of(features[None])).features


@lru_cache(maxsize=1)
def original_perceiver(folder: Path, ours: Perceiver) -> nn.Module:
    """Theirs, with the weights of ours."""
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
    args = SimpleNamespace(
        mm_perceiver_depth=3, mm_perceiver_latents=TOKENS, mm_perceiver_ff_mult=4, mm_perceiver_pretrained=None
    )
    theirs: nn.Module = original.PerceiverResampler(args, SimpleNamespace(hidden_size=ours.dim)).perceiver
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
    return theirs


@torch.no_grad()
def their_perceiver(folder: Path, sample: tuple[Tensor, int]) -> Tensor:
    features, seed = sample
    out: Tensor = original_perceiver(folder, perceiver(features, seed))(features.flatten(1, 2)[:, None, None])
    return out.flatten(0, 2)


@lru_cache(maxsize=1)
def q_former(features: Tensor, seed: int, text: bool) -> QFormer:
    torch.manual_seed(seed)
    _, h, w, d = features.shape
    config = QFormer.Config(
        retention=TOKENS / (h * w),
        frames_per_group=1,
        queries=TOKENS,
        depth=4,
        look_every=2,
        channels=96,
        heads=HEADS,
        text=text,
    )
    module: QFormer = noisy(QFormer(config, dim=d))
    module.frame_encoding.data.zero_()  # theirs has none
    return module


def question(features: Tensor) -> Tensor:
    return features[0, 0, :5]


def our_q_former(text: bool) -> Callable[[tuple[Tensor, int]], Tensor]:
    @torch.no_grad()
    def ours(sample: tuple[Tensor, int]) -> Tensor:
        features, seed = sample
        query = question(features)[None] if text else None
        return q_former(features, seed, text)(VideoGrid.of(features[None]), query).features

    return ours


def their_q_former(text: bool) -> Callable[[Path, tuple[Tensor, int]], Tensor]:
    """Their layers one after the other; what is around them, two norms and the words' embedding, is ours."""

    @torch.no_grad()
    def theirs(folder: Path, sample: tuple[Tensor, int]) -> Tensor:
        features, seed = sample
        ours = q_former(features, seed, text)
        layers = _bert_layers(folder / FOLDER / "qformer.py", ours)
        cells = ours.norm_cells(features.flatten(1, 2))
        hidden = ours.queries
        if ours.words is not None:
            hidden = torch.cat([hidden, ours.words(question(features))])
        hidden = ours.norm(hidden).expand(len(features), -1, -1)
        for layer in layers:
            hidden = layer(hidden, encoder_hidden_states=cells, query_length=TOKENS)[0]
        return hidden[:, :TOKENS].flatten(0, 1)

    return theirs


@lru_cache(maxsize=1)
def _bert_layers(path: Path, ours: QFormer) -> list[nn.Module]:
    names = ("SelfAttention", "SelfOutput", "Attention", "Intermediate", "Output", "Layer")
    wanted = [f"Bert{name}" for name in names]
    found: list[ast.stmt] = [
        n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef) and n.name in wanted
    ]
    scope: dict[str, Any] = {"torch": torch, "nn": nn, "math": math, "ACT2FN": {"gelu": nn.GELU()}}
    scope["apply_chunking_to_forward"] = lambda forward, size, axis, x: forward(x)
    exec(compile(ast.Module(found, []), str(path), "exec"), scope)
    config = SimpleNamespace(
        hidden_size=ours.out_dim,
        encoder_width=ours.dim,
        num_attention_heads=HEADS,
        intermediate_size=ours.out_dim * ours.config.expansion,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        chunk_size_feed_forward=0,
        add_cross_attention=True,
        cross_attention_freq=ours.config.look_every,
    )
    layers = []
    for i, layer in enumerate(ours.layers):
        theirs: nn.Module = scope["BertLayer"](config, i).eval()
        state: dict[str, Tensor] = {}
        for name, p in layer.named_parameters():
            state[_bert_name(name)] = p
        unknown = theirs.load_state_dict(state, strict=False).unexpected_keys
        assert not unknown, unknown
        layers.append(theirs)
    return layers


def _bert_name(name: str) -> str:
    """Where theirs keeps what ours calls ``name``."""
    part, *inner, leaf = name.split(".")
    if part in ("among", "look"):
        block = "attention" if part == "among" else "crossattention"
        where = {"norm": "output.LayerNorm", "out": "output.dense"}.get(inner[-1], f"self.{inner[-1]}")
        return f"{block}.{where}.{leaf}"
    kind = "_query" if part == "feed" else ""
    where = {"0": f"intermediate{kind}.dense", "2": f"output{kind}.dense", "norm": f"output{kind}.LayerNorm"}
    return f"{where[inner[-1]]}.{leaf}"


COMPARISONS: Sequence[Comparison] = (
    Comparison(
        kind="compressor",
        method="perceiver",
        what="three layers, 32 latents, frame by frame, the same weights",
        shapes=((3, 8, 8, 64), (2, 12, 8, 96), (5, 7, 9, 32)),
        make=frames,
        ours=our_perceiver,
        theirs=their_perceiver,
        timed=((8, 27, 27, 1152),),
    ),
    Comparison(
        kind="compressor",
        method="q_former",
        what="four layers, cross-attention in every second, the same weights",
        shapes=((3, 8, 8, 64), (2, 12, 8, 96), (5, 7, 9, 32)),
        make=frames,
        ours=our_q_former(text=False),
        theirs=their_q_former(text=False),
        timed=((8, 27, 27, 1152),),
    ),
    Comparison(
        kind="compressor",
        method="q_former",
        what="the same with a question of five words",
        shapes=((3, 8, 8, 64), (5, 7, 9, 32)),
        make=frames,
        ours=our_q_former(text=True),
        theirs=their_q_former(text=True),
    ),
)
