"""The Q-Former: the kit's laws, its definition against the one in transformers, and the question's part in it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from vxl_learned.q_former import QFormer

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", QFormer)
def test_law(law: Callable[[], None]) -> None:
    law()


def build(dim: int = 24, **params: Any) -> QFormer:
    torch.manual_seed(0)
    module = QFormer(QFormer.Config(**{"queries": 16, "heads": 4} | params), dim=dim)
    for p in module.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.1)
    return module.eval()


def grid(frames: int = 4, dim: int = 24) -> VideoGrid:
    return VideoGrid.of(torch.randn(1, frames, 2, 2, dim, generator=torch.Generator().manual_seed(1)))


def linear(ours: nn.Module, state: dict[str, Tensor], theirs: str) -> None:
    state |= {f"{theirs}.{name}": p for name, p in ours.named_parameters()}


def as_transformers(module: QFormer) -> Blip2QFormerModel:
    c = module.config
    theirs = Blip2QFormerModel(
        Blip2QFormerConfig(
            hidden_size=module.out_dim,
            num_hidden_layers=c.depth,
            num_attention_heads=c.heads,
            intermediate_size=module.out_dim * c.expansion,
            cross_attention_frequency=c.look_every,
            encoder_hidden_size=module.dim,
        )
    ).eval()
    state: dict[str, Tensor] = {}
    linear(module.norm, state, "layernorm")
    for i, layer in enumerate(module.layers):
        at = f"encoder.layer.{i}"
        for ours, name in ((layer.among, "attention"), (layer.look, "crossattention")):
            if ours is None:
                continue
            attention: Any = ours.attention
            for part in ("query", "key", "value"):
                linear(getattr(attention, part), state, f"{at}.{name}.attention.{part}")
            linear(attention.out, state, f"{at}.{name}.output.dense")
            linear(ours.norm, state, f"{at}.{name}.output.LayerNorm")  # type: ignore[arg-type]
        feed: Any = layer.feed
        linear(feed.feed[0], state, f"{at}.intermediate_query.dense")
        linear(feed.feed[2], state, f"{at}.output_query.dense")
        linear(feed.norm, state, f"{at}.output_query.LayerNorm")
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and not [name for name in missing if "_query" in name or "attention" in name]
    return theirs


@pytest.mark.parametrize(("depth", "look_every", "channels"), [(2, 1, None), (4, 2, 32)])
def test_equals_transformers_with_the_same_weights(depth: int, look_every: int, channels: int | None) -> None:
    module, video = build(retention=1 / 4, depth=depth, look_every=look_every, channels=channels), grid()
    cells = (module.norm_cells(video.features) + module.frame_encoding[:, None, None]).flatten(1, 3)
    with torch.no_grad():
        theirs = as_transformers(module)(query_embeds=module.queries[None, :4], encoder_hidden_states=cells)
        torch.testing.assert_close(module(video).features, theirs.last_hidden_state[0], atol=1e-5, rtol=1e-4)


def test_the_question_changes_the_tokens_of_every_group_and_its_own_words_alone() -> None:
    module = build(retention=1 / 4, text=True)
    features = grid(8).features.expand(2, -1, -1, -1, -1)
    questions = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(2))
    first, second = module(VideoGrid.of(features), questions).per_video()
    assert ((first - second).abs().amax(1) > 1e-3).all()
    alone = module(VideoGrid.of(features[:1]), questions[:1])
    torch.testing.assert_close(alone.features, first)


def test_a_question_is_needed_only_with_text() -> None:
    build(retention=1 / 4)(grid())
    with pytest.raises(ValueError, match="query-aware"):
        build(retention=1 / 4, text=True)(grid())


def test_tokens_have_the_channels_asked_for() -> None:
    module = build(retention=1 / 4, channels=32)
    assert module.out_dim == 32 and module(grid()).features.shape == (4, 32)


@pytest.mark.parametrize("text", [False, True])
def test_the_gradient_of_a_loss_reaches_every_part(text: bool) -> None:
    module = build(retention=1 / 4, depth=3, text=text)
    query = torch.randn(1, 3, 24, requires_grad=True) if text else None
    module(grid(), query).features.pow(3).sum().backward()
    for name, p in module.named_parameters():
        if not name.endswith("key.bias"):  # a softmax does not feel what is added to all keys
            assert p.grad is not None and p.grad.abs().max() > 1e-7, name
    assert query is None or (query.grad is not None and query.grad.abs().max() > 0)


def test_refusals_name_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"heads=5 does not divide 24 channels; take 4"):
        build(heads=5)
    with pytest.raises(ValueError, match="channels=0 must be at least 1"):
        build(channels=0)
    with pytest.raises(ValueError, match="set queries to at least 32"):
        build(retention=1 / 2).tokens_per_group(4, 4)
