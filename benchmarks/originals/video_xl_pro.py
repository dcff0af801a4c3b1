"""Video-XL-Pro, stage by stage, against its authors' release with the same random weights.

The weights carry the released names and are loaded by both. The release draws two things at every call, the frames it
doubles and the share it keeps; here both are set to what ours does. Its modules are imported from the folder
``Video-XL-Pro`` of the checkout; packages that they import and these stages do not use are stubbed, and of einops the
one function they use.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from _originals import Comparison, Repository, importing
from torch import Tensor, nn

from vxl_lightning.compressors.released import spread_frames
from vxl_lightning.encoders.siglip import resized
from vxl_lightning.models.build import AdapterConfig, VideoLMConfig, build_video_lm
from vxl_lightning.models.packing import Segment, pack
from vxl_lightning.models.prefix import Prefix
from vxl_lightning.models.released.names import UNUSED, video_xl_pro
from vxl_lightning.models.released.video_xl_pro import VideoXLPro, released_parts, released_prompt
from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("VectorSpaceLab/Video-XL", "6e3dc89dad54f9322496dcb13494891ce558d243", "Apache-2.0")

PACKAGE = "videoxlpro.videoxlpro"
PLACEHOLDER, IMAGE = 151654, -200
"""Token ids the release writes where visual tokens, and where the video, will stand."""
VOCABULARY = PLACEHOLDER + 2
KEEP = 0.8
GRIDS = [(4, 6, 6, 64), (7, 5, 8, 64), (13, 9, 7, 96), (1, 4, 4, 64), (3, 4, 6, 64), (5, 3, 4, 1152)]
"""(T, H, W, D): whole and broken groups, fewer frames than a group, the release's own width."""
VIDEOS = [(4, 64, 32), (5, 96, 32), (13, 64, 64), (102, 64, 32), (2, 64, 32)]
"""(T, D, hidden), with the release's 27x27 cells of the tower, 24x24 of the grid."""
QUESTION = "Which shape is red?"


class Letters:
    """A tokenizer with a token for every character: times have the same number of them."""

    bos_token_id = eos_token_id = 0
    chat_template = ""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [ord(letter) for letter in text]

    def apply_chat_template(self, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool, **_: Any) -> str:
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        return text + "<|im_start|>assistant\n" * add_generation_prompt


@dataclass(frozen=True, eq=False)
class Case:
    """A model of ours with random weights, the same weights by their released names, and features to start from."""

    model: VideoXLPro
    weights: dict[str, Tensor]
    features: Tensor
    times: Tensor


def build(dim: int, hidden: int, seed: int) -> tuple[VideoXLPro, dict[str, Tensor]]:
    """Random weights are drawn by their released names, and given to a model of ours by the rules of conversion."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    language = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.3,
        )
    ).eval()  # fmt: skip
    config = VideoLMConfig(
        dim=dim,
        **released_parts(pad="spread"),
        prompt=released_prompt(KEEP),
        adapter=AdapterConfig(rank=0),
        released=True,
    )
    model = build_video_lm(config, (language, Letters())).eval()
    assert isinstance(model, VideoXLPro)
    ours, weights = model.state_dict(), {}
    for rule in video_xl_pro():
        for name in rule.theirs:
            weights[name] = random_weight(name, rule.shape(ours[rule.ours].shape))
        ours[rule.ours] = rule.to_ours([weights[name] for name in rule.theirs])
    model.load_state_dict(ours)
    like = "model.WindowTimeToTokenAttention.q_proj"
    return model, weights | {
        name: random_weight(name, weights[f"{like}.{name.rsplit('.', 1)[1]}"].shape) for name in UNUSED
    }


def random_weight(name: str, shape: Sequence[int]) -> Tensor:
    if ".norm." in name:
        return (1.0 if name.endswith("weight") else 0.0) + 0.2 * torch.randn(*shape)
    if len(shape) == 1 or "temporal_encoding" in name:
        return 0.3 * torch.randn(*shape)
    return torch.randn(*shape) * (shape[1] if "table" in name else torch.Size(shape[1:]).numel()) ** -0.5


def make_grid(shape: tuple[int, ...], seed: int) -> Case:
    t, h, w, d = shape
    model, weights = build(d, 32, seed)
    return Case(model, weights, torch.randn(t, h, w, d), torch.arange(t).float())


def make_video(shape: tuple[int, ...], seed: int) -> Case:
    t, dim, hidden = shape
    model, weights = build(dim, hidden, seed)
    # Tower features of one scale everywhere would give scores that hardly differ.
    features = torch.randn(t, 27, 27, dim) * torch.rand(t, 27, 27, 1) + torch.randn(t, 1, 1, dim)
    return Case(model, weights, features, 7.3 * torch.arange(t))


# --- ours ---


def grid_of(case: Case) -> VideoGrid:
    return VideoGrid.of(resized(case.features, (24, 24))[None], case.times[None])


@torch.no_grad()
def our_dts(case: Case) -> Tensor:
    tokens = case.model.compressor(VideoGrid.of(case.features[None], case.times[None]))
    return tokens.features  # type: ignore[no-any-return]


@torch.no_grad()
def our_visual(case: Case) -> Tensor:
    return case.model.project(grid_of(case)).features


def _our_prefix(case: Case) -> Prefix:
    return case.model.prefix(case.model.project(grid_of(case)), 0, QUESTION)


@torch.no_grad()
def our_scores(case: Case) -> Tensor:
    selection = _our_prefix(case).selection
    assert selection is not None
    return selection.scores


@torch.no_grad()
def our_choice(case: Case) -> Tensor:
    return _our_prefix(case).token.float()


@torch.no_grad()
def our_prefix(case: Case) -> Tensor:
    asked = case.model.embedding(case.model.ids(case.model.layout.chat.question(QUESTION)))
    return torch.cat([_our_prefix(case).embeds, asked])


@torch.no_grad()
def our_logits(case: Case) -> Tensor:
    tree = [
        Segment(_our_prefix(case).embeds, -1),
        Segment(case.model.ids(case.model.layout.chat.question(QUESTION)), 0),
    ]
    return case.model.logits(case.model.hidden(pack([tree], case.model.embedding))[0, -1])


# --- theirs ---


def rearranged(x: Tensor, pattern: str, **lengths: int) -> Tensor:
    """What the release uses of einops' rearrange: axes split, permuted and joined."""
    left, right = ([re.findall(r"\w+", g) for g in re.findall(r"\([^)]*\)|\w+", side)] for side in pattern.split("->"))
    for axis, names in enumerate(left):
        unknown = [n for n in names if n not in lengths]
        known = 1
        for name in names:
            known *= lengths.get(name, 1)
        lengths |= {n: x.shape[axis] // known for n in unknown}
    order = list(chain(*left))
    split = x.reshape([lengths[n] for n in order]).permute([order.index(n) for n in chain(*right)])
    joined = [torch.Size([lengths[n] for n in names]).numel() for names in right]
    return split.reshape(joined)


def _stubs(root: Path) -> dict[str, ModuleType]:
    def module(name: str, **content: Any) -> tuple[str, ModuleType]:
        made = ModuleType(name)
        vars(made).update(content)
        return name, made

    # Packages without what their __init__ imports, so that single modules can be.
    packages = {
        "videoxlpro": root / "videoxlpro",
        PACKAGE: root / "videoxlpro/videoxlpro",
        f"{PACKAGE}.model": root / "videoxlpro/videoxlpro/model",
    }
    return dict(
        [module(name, __path__=[str(path)]) for name, path in packages.items()]
        + [
            module("einops", rearrange=rearranged, reduce=None, repeat=None),
            module("cv2"),
            module(f"{PACKAGE}.mm_utils", get_anyres_image_grid_shape=None),
            module(f"{PACKAGE}.utils", rank0_print=None),
            module(f"{PACKAGE}.model.multimodal_encoder.builder", build_vision_tower=None),
            module(f"{PACKAGE}.model.multimodal_resampler.builder", build_vision_resampler=None),
        ]
    )


@cache
def original(folder: Path) -> SimpleNamespace:
    """The release's modules."""
    root = folder / "Video-XL-Pro"
    before = dict(sys.modules)
    with importing(root), patch.dict(sys.modules, _stubs(root)):
        arch, sae, parts, attention, projector = (
            import_module(f"{PACKAGE}.model.{name}")
            for name in ("llava_arch", "sae", "sae_utils", "WindowTimeToTokenAttention", "multimodal_projector.builder")
        )
    for name in set(sys.modules) - set(before):
        if name.startswith("videoxlpro"):
            del sys.modules[name]
    return SimpleNamespace(arch=arch, sae=sae, parts=parts, attention=attention, projector=projector)


def their_sae(code: SimpleNamespace, dim: int) -> nn.Module:
    """The release's module, whose width of 1152 is written into it, at any width."""
    if dim == 1152:
        return code.sae.SiglipAE()  # type: ignore[no-any-return]
    module = code.sae.SiglipAE.__new__(code.sae.SiglipAE)
    nn.Module.__init__(module)
    module.temporal_encoding = nn.Parameter(torch.empty(4, dim))
    layers = []
    for _ in range(2):
        conv = code.parts.SamePadConv3d(dim, dim, kernel_size=3, stride=(2, 1, 1), padding_type="replicate")
        layers += [code.parts.AttnBlock3D(dim), code.parts.TemporalAttention(dim), conv]
    module.encoder = nn.Sequential(*layers)
    return module  # type: ignore[no-any-return]


@contextmanager
def not_drawn(code: SimpleNamespace, frames: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What the release draws is what ours does; gives what it ranks: (scores, kept)."""
    counts = torch.bincount(spread_frames(torch.tensor([frames]), 4)[0][0], minlength=frames)
    order, ranked = counts.argsort(descending=True, stable=True), []
    topk = torch.topk

    def watched(scores: Tensor, count: int) -> Any:
        found = topk(scores, count)
        ranked.append((scores.clone(), found.indices.sort().values))
        return found

    with (
        patch.object(torch, "randperm", lambda n: order),
        patch.object(torch, "topk", watched),
        patch.object(code.arch.random, "uniform", lambda low, high: KEEP),
    ):
        yield ranked


@lru_cache(maxsize=1)
def host(folder: Path, case: Case) -> tuple[SimpleNamespace, Any]:
    """The release's causal-language-model mixin around its own modules; the tower passes features through."""
    code, model = original(folder), case.model
    dim, hidden = model.projector.dim, model.projector.hidden
    inner = nn.Module()
    inner.sae = their_sae(code, dim)
    inner.mm_projector = code.projector.build_vision_projector(
        SimpleNamespace(mm_projector_type="mlp2x_gelu", mm_hidden_size=dim, hidden_size=hidden)
    )
    inner.text_mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU())
    inner.WindowTimeToTokenAttention = code.attention.WindowTimeToTokenAttention(hidden, 4)
    inner.load_state_dict({name.removeprefix("model."): tensor for name, tensor in case.weights.items()})
    attention = inner.WindowTimeToTokenAttention
    attention.num_query_tokens = len(time_ids(case, 0.0))
    attention.group_size = attention.num_query_tokens + attention.num_kv_tokens
    inner.embed_tokens = model.embedding
    inner.get_vision_tower = lambda: Tower()

    class Host(code.arch.LlavaMetaForCausalLM):  # type: ignore[misc]
        config = SimpleNamespace(mm_patch_merge_type="unires", mm_spatial_pool_mode="average", mm_spatial_pool_stride=2)
        device = torch.device("cpu")

        def get_model(self) -> nn.Module:
            return inner

        def get_vision_tower(self) -> Any:
            return Tower()

    class Tower:
        num_patches_per_side = 24

        def __call__(self, features: Tensor) -> Tensor:
            return features.flatten(1, 2)

    return code, Host()


def time_ids(case: Case, seconds: float) -> list[int]:
    return list(case.model.tokenizer.encode(f"Time {seconds:06.1f}s:"))


@torch.no_grad()
def their_dts(folder: Path, case: Case) -> Tensor:
    t, h, w, d = case.features.shape
    code, whole = host(folder, case)
    with not_drawn(code, t):
        frames = whole.add_video(case.features.permute(0, 3, 1, 2).contiguous())
        slots = whole.get_model().sae(frames.view(-1, d, 4, h, w))
    return slots[:, :, 0].permute(0, 2, 3, 1).reshape(-1, d)  # type: ignore[no-any-return]


@torch.no_grad()
def their_visual(folder: Path, case: Case) -> Tensor:
    code, whole = host(folder, case)
    with not_drawn(code, len(case.features)):
        (features,) = whole.encode_multimodals(case.features, [0], [len(case.features)])
    return features.flatten(0, 1)  # type: ignore[no-any-return]


def _their_prefix(folder: Path, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Input embeddings of the whole prompt, scores, kept tokens."""
    code, whole = host(folder, case)
    chat, frames = case.model.layout.chat, len(case.features)
    prompt = torch.tensor([[*chat.head, IMAGE, *chat.question(QUESTION)]])
    times = [ids for t in case.times[::4].tolist() for ids in (*time_ids(case, t), *[PLACEHOLDER] * 144)]
    with not_drawn(code, frames) as ranked:
        out = whole.prepare_inputs_labels_for_multimodal(
            prompt, None, None, None, None, [case.features], ["video"], time_embedding=[torch.tensor(times)]
        )
    ((scores, kept),) = ranked
    return out[4][0], scores, kept


@torch.no_grad()
def their_scores(folder: Path, case: Case) -> Tensor:
    return _their_prefix(folder, case)[1]


@torch.no_grad()
def their_choice(folder: Path, case: Case) -> Tensor:
    return _their_prefix(folder, case)[2].float()


@torch.no_grad()
def their_prefix(folder: Path, case: Case) -> Tensor:
    return _their_prefix(folder, case)[0]


@torch.no_grad()
def their_logits(folder: Path, case: Case) -> Tensor:
    embeds = _their_prefix(folder, case)[0]
    return case.model.language_model(inputs_embeds=embeds[None], logits_to_keep=1).logits[0, -1]  # type: ignore[no-any-return]


COMPARISONS: Sequence[Comparison] = [
    Comparison(
        "compressor",
        "dts",
        "tokens of released=true",
        GRIDS,
        make_grid,
        our_dts,
        their_dts,
        timed=[(8, 24, 24, 1152)],
    ),
    Comparison(
        "model", "video-xl-pro", "resized, DTS, projected, pooled", VIDEOS, make_video, our_visual, their_visual
    ),
    Comparison("selector", "query_aware", "scores of released=true", VIDEOS, make_video, our_scores, their_scores),
    Comparison("selector", "query_aware", "tokens kept", VIDEOS, make_video, our_choice, their_choice),
    Comparison("model", "video-xl-pro", "everything before the answer", VIDEOS, make_video, our_prefix, their_prefix),
    Comparison(
        "model", "video-xl-pro", "logits of the first answer token", VIDEOS, make_video, our_logits, their_logits
    ),
]
