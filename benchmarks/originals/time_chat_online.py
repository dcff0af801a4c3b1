"""TimeChat-Online's differential token drop, called inside its changed Qwen2.5-VL."""

import ast
from functools import cache, lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from _originals import Comparison, Repository
from torch import Tensor
from vxl_temporal.dtd import DifferentialTokenDrop

from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("yaolinli/TimeChat-Online", "25a15783a6fd83e3360b3326cee44029fcce0132", "BSD-3-Clause")

MODELING = "eval/qwen2_5_vl/modeling_qwen2_5_vl_DTD.py"
START, END, VIDEO = 1, 2, 3


def make(shape: tuple[int, ...], seed: int) -> Tensor:
    """``[T, H, W, D]`` whose cells change much, a little, or not at all from frame to frame."""
    generator = torch.Generator().manual_seed(seed)
    t, h, w, d = shape
    change = 3 * (torch.rand(t, h, w, 1, generator=generator) - 0.2).clamp(min=0)
    frames = [torch.randn(h, w, d, generator=generator)]
    for step in change[1:]:
        frames.append((frames[-1] + step * torch.randn(h, w, d, generator=generator)) / (1 + step**2).sqrt())
    return torch.stack(frames)


@cache
def original(folder: Path) -> Any:
    # The model imports much that is not needed for this one method, so it is read and made a function.
    tree = ast.parse((folder / MODELING).read_text())
    found = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "token_drop")
    found.returns = None
    for argument in found.args.args:
        argument.annotation = None
    space: dict[str, Any] = {"torch": torch, "F": F, "OPENAI_CLIP_STD": [1.0] * 3, "OPENAI_CLIP_MEAN": [0.0] * 3}
    exec(compile(ast.Module([found], []), MODELING, "exec"), space)
    return space["token_drop"]


@lru_cache(maxsize=1)
def arguments(features: Tensor) -> dict[str, Any]:
    """What the model has at hand when it calls ``token_drop``."""
    t, h, w, d = features.shape
    cells = t * h * w
    frame, row, column = (torch.cartesian_prod(*map(torch.arange, (t, h, w))) + 1).T
    position = F.pad(torch.stack([frame, row, column]), (1, 0))
    position = F.pad(position, (0, 1), value=t + 1)[:, None]
    ids = torch.full((1, 1, cells + 2), VIDEO)
    ids[..., 0], ids[..., -1] = START, END
    embedding = torch.zeros(3, 1, cells + 2, 4)
    return {
        "hidden_states": F.pad(features.reshape(1, cells, d), (0, 0, 1, 1)),
        "pixel_values_videos": torch.zeros(4 * cells, 3 * 2 * 14 * 14),
        "video_grid_thw": torch.tensor([[t, 2 * h, 2 * w]]),
        "position_embeddings": (embedding, embedding),
        "position_ids": position,
        "input_ids": ids,
    }


def theirs(folder: Path, features: Tensor, threshold: float, absolute: bool) -> Tensor:
    """The hidden states of the video tokens that ``token_drop`` leaves, in order."""
    model = SimpleNamespace(config=SimpleNamespace(vision_start_token_id=START, vision_end_token_id=END))
    hidden, _, _ = original(folder)(
        model, method="feature", threshold=threshold, absolute=absolute, **arguments(features)
    )
    return hidden[0, 1:-1]  # type: ignore[no-any-return]


def by_threshold(features: Tensor) -> Tensor:
    config = DifferentialTokenDrop.Config()
    return DifferentialTokenDrop(config, dim=features.shape[-1])(VideoGrid.of(features[None])).features


def by_ratio(features: Tensor, drop: float = 0.75) -> Tensor:
    """Relative mode as it is once the first frame is paid back; that frame and the ones until then are not compared."""
    t, h, w, d = features.shape
    compressor = DifferentialTokenDrop(DifferentialTokenDrop.Config(retention=1 - drop, mode="relative"), dim=d)
    before = int(2 / (1 - drop))  # frames in front of the video, as still as its first, that pay for one another
    tokens = compressor(VideoGrid.of(torch.cat([features[:1].expand(before, h, w, d), features])[None]))
    return tokens.features[tokens.position[:, 0] > before]


def their_ratio(folder: Path, features: Tensor, drop: float = 0.75) -> Tensor:
    return theirs(folder, features, drop, absolute=False)[features[0, ..., 0].numel() :]


COMPARISONS = (
    Comparison(
        kind="compressor",
        method="dtd",
        what="cells that pass the published threshold 0.5",
        shapes=((1, 4, 4, 32), (7, 8, 8, 64), (12, 6, 10, 128), (33, 14, 14, 64)),
        make=make,
        ours=by_threshold,
        theirs=lambda folder, features: theirs(folder, features, 0.5, absolute=True),
        timed=((32, 27, 27, 1152),),
    ),
    Comparison(
        kind="compressor",
        method="dtd",
        what="the quarter that changed most of every frame after the first",
        shapes=((2, 4, 4, 32), (7, 8, 8, 64), (12, 6, 10, 128), (33, 14, 14, 64)),
        make=make,
        ours=by_ratio,
        theirs=their_ratio,
    ),
)
