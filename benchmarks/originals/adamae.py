"""AdaMAE: the sampler's probabilities with the same weights, and the gradient of the loss that trains it."""

import ast
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from _originals import Comparison, Repository, importing
from torch import Tensor, nn
from torch.nn import functional as F

from vxl_lightning.maskers.adaptive import AdaptiveMasker
from vxl_lightning.models.recot import Reconstruction, reconstruction_loss, sampling_loss
from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("wgcban/adamae", "aa198502f3da26a5ecb1999aeaf19a7a04bab272", "MIT")
PATCH = 16
SLOTS = 16
"""Frames of the original's clips, which it cuts into T slots."""
WEIGHT = 1e-4
"""Of the sampler's loss, fixed in the original."""


def trained(dim: int) -> AdaptiveMasker:
    """A sampler without a parameter at zero."""
    torch.manual_seed(1)
    masker = AdaptiveMasker(AdaptiveMasker.Config(ratio=0.95), dim)
    for p in masker.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.1)
    return masker.eval()


def make(shape: tuple[int, ...], seed: int) -> VideoGrid:
    return VideoGrid.of(torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed)))


def our_probabilities(grid: VideoGrid) -> Tensor:
    with torch.no_grad():
        return trained(grid.shape[-1]).log_probabilities(grid).exp().flatten(1)


def their_probabilities(folder: Path, grid: VideoGrid) -> Tensor:
    """``[B, T * H * W]``. The original is given what ours attends to: normalised cells, and our places as its table."""
    _, t, h, w, d = grid.shape
    ours = trained(d)
    with stand_ins(), importing(folder), redirect_stdout(StringIO()):
        encoder = import_module("models.pretrain.vit").PretrainVisionTransformerEncoder(
            img_size=(h * PATCH, w * PATCH), patch_size=PATCH, embed_dim=d, depth=0, tubelet_size=SLOTS // t
        )
    block, score = encoder.get_token_probs[0], encoder.get_token_probs[1]
    pairs = [
        (block.norm1, ours.norm),
        (block.attn.qkv, ours.qkv),
        (block.attn.proj, ours.out),
        (block.norm2, ours.mlp[0]),
        (block.mlp.fc1, ours.mlp[1]),
        (block.mlp.fc2, ours.mlp[3]),
    ]
    for theirs, own in pairs:
        theirs.load_state_dict(own.state_dict())
    score.weight.data.copy_(ours.logit.weight.data)
    table = ours.position(ours.places(h, w))[: t * h * w]
    encoder.pos_embed_probs.data.copy_(table[None])
    with torch.no_grad():
        probabilities: Tensor = encoder.eval().get_mask(F.layer_norm(grid.features, (d,)).flatten(1, 3))[0]
    return probabilities


def drawn(grid: VideoGrid) -> tuple[Reconstruction, Tensor, Tensor]:
    """A reconstruction, what was hidden, and scores that require a gradient: the same for both."""
    generator = torch.Generator().manual_seed(2)
    hidden = trained(grid.shape[-1])(grid, generator).hidden
    predicted = torch.randn(grid.features.shape, generator=generator)
    scores = torch.randn(grid.shape[:4], generator=generator).requires_grad_()
    return Reconstruction(predicted, grid.features, None), hidden, scores  # type: ignore[arg-type]


def our_gradient(grid: VideoGrid) -> Tensor:
    """``[B, T * H * W]`` of the whole loss to the scores whose softmax the probabilities are."""
    result, hidden, scores = drawn(grid)
    log_prob = scores.flatten(1).log_softmax(1).view_as(hidden)
    loss = reconstruction_loss(result, grid, hidden, 0.0) + WEIGHT * sampling_loss(result, hidden, log_prob)
    return torch.autograd.grad(loss, scores)[0].flatten(1)


def their_gradient(folder: Path, grid: VideoGrid) -> Tensor:
    """Runs the statements of the original's training step from the reconstruction error to the total loss."""
    result, hidden, scores = drawn(grid)
    mask, b, d = hidden.flatten(1), grid.shape[0], grid.shape[-1]
    names: dict[str, Any] = {
        "torch": torch,
        "loss_func": nn.MSELoss(reduction="none"),
        "videos": grid.features,
        "p_x": scores.flatten(1).softmax(1),
        "bool_masked_pos": mask,
        "mask_outputs": result.predicted.flatten(1, 3)[mask].view(b, -1, d),
        "mask_labels": result.target.flatten(1, 3)[mask].view(b, -1, d),
    }
    exec(loss_statements(folder), names)
    return torch.autograd.grad(names["loss"], scores)[0].flatten(1)


def loss_statements(folder: Path) -> Any:
    """Compiled, from the assignment of ``mask_l_r`` to that of ``loss``."""
    path = folder / "msc" / "engine_for_pretraining.py"
    for node in ast.walk(ast.parse(path.read_text())):
        body = getattr(node, "body", None)
        targets = [ast.unparse(s.targets[0]) if isinstance(s, ast.Assign) else "" for s in body or ()]
        if "mask_l_r" in targets and "loss" in targets:
            statements = body[targets.index("mask_l_r") : targets.index("loss") + 1]  # type: ignore[index]
            return compile(ast.Module(statements, []), str(path), "exec")
    raise LookupError(f"{path} does not compute mask_l_r and loss")


def stand_ins() -> Any:
    """For timm, of which the original's sampler runs nothing."""
    layers, models, registry = ModuleType("timm.models.layers"), ModuleType("timm.models"), ModuleType("registry")
    for name in ("drop_path", "trunc_normal_"):
        setattr(layers, name, lambda *args, **kwargs: args[0])
    layers.to_2tuple = lambda x: x if isinstance(x, tuple) else (x, x)  # type: ignore[attr-defined]
    registry.register_model = lambda f: f  # type: ignore[attr-defined]
    names = {"timm": ModuleType("timm"), "timm.models": models, "timm.models.layers": layers}
    return patch.dict(sys.modules, {**names, "timm.models.registry": registry})


COMPARISONS: Sequence[Comparison] = [
    Comparison(
        kind="masker",
        method="adaptive",
        what="probabilities, given normalised cells and our table of places",
        shapes=[(8, 6, 6, 64), (5, 4, 7, 32), (3, 2, 5, 32)],
        make=make,
        ours=our_probabilities,
        theirs=their_probabilities,
    ),
    Comparison(
        kind="masker",
        method="adaptive",
        what="gradient of the sampling loss",
        shapes=[(8, 6, 6, 64), (5, 4, 7, 32), (3, 2, 5, 32)],
        make=make,
        ours=our_gradient,
        theirs=their_gradient,
    ),
]
