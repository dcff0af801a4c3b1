"""A language model that reads through a cache compressor: scores, losses, gradients, and what is saved of it."""

import pytest
import torch
from tests import tiny_lm
from tests.models.test_streaming import CHOICES, make, video

from vxl_lightning.errors import UserError
from vxl_lightning.models.build import VideoLMConfig, build_video_lm
from vxl_lightning.models.pretrained import load_pretrained, save_pretrained
from vxl_lightning.modules.tuning import InstructionTuning
from vxl_lightning.tokens import VideoGrid

PAIRS = [[("shape?", "disk"), ("colour?", "red")], [("shape?", "ring")]]


def batch():
    grids = [video(8, seed=s) for s in (0, 1)]
    return VideoGrid(*(torch.cat([getattr(g, n) for g in grids]) for n in ("features", "times", "frame_mask")))


def test_with_a_full_cache_losses_and_scores_are_those_without():
    plain, full, grid = make(None), make({"name": "full"}), batch()
    with torch.no_grad():
        losses = [model.loss(model.project(grid), PAIRS).item() for model in (plain, full)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
        asked = [["shape?", "colour?"], ["shape?"]]
        allowed = [[CHOICES, tiny_lm.COLOURS], [CHOICES]]
        for a, b in zip(plain.answers(grid, asked, allowed), full.answers(grid, asked, allowed), strict=True):
            assert all(torch.allclose(x, y, atol=1e-4) for x, y in zip(a, b, strict=True))
        prefixes = [[m.prefix(m.project(grid), b) for b in range(2)] for m in (plain, full)]
        assert full.answer_losses(prefixes[1], PAIRS, 8) == [
            pytest.approx(row, abs=1e-5) for row in plain.answer_losses(prefixes[0], PAIRS, 8)
        ]


def test_a_question_alone_is_answered_as_beside_others():
    model, grid = make({"name": "quantized", "retention": 0.5, "window": 4, "block": 1}), video(22)
    together = model.answers(grid, [["shape?", "colour?"]], [[CHOICES, tiny_lm.COLOURS]])[0]
    alone = [
        model.answers(grid, [[question]], [[choices]])[0][0]
        for question, choices in (("shape?", CHOICES), ("colour?", tiny_lm.COLOURS))
    ]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(together, alone, strict=True))


def test_the_summarisation_tokens_learn_from_answers():
    model = make({"name": "vst", "retention": 0.5, "window": 1})
    for parameter in model.language_model.parameters():
        parameter.requires_grad_(False)
    model.loss(model.project(batch()), PAIRS).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.cache.parameters())
    assert all(p.grad is not None for p in model.projector.parameters())


def test_a_conversation_goes_on_over_a_memory():
    model, grid = make({"name": "vst", "retention": 0.5, "window": 1}), batch()
    with torch.no_grad():
        first, second = (model.loss(model.project(grid), PAIRS, dialogue).item() for dialogue in (False, True))
    assert first != second


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dialogue": True}, "set dialogue=false"),
        ({"gradient_checkpointing": True}, "set gradient_checkpointing=false"),
    ],
)
def test_what_does_not_go_with_a_cache_is_refused_before_training(settings, message):
    with pytest.raises(UserError, match=message):
        InstructionTuning(settings, make({"name": "quantized", "window": 4}))


def test_a_loaded_cache_draws_its_ratios_when_it_is_tuned():
    model = make({"name": "vst", "retention": 0.5, "window": 1, "ratios": [2, 4]})
    assert not model.cache.training
    InstructionTuning({}, model)
    assert model.cache.training
    assert make(None).answer_losses([make(None).nothing()], [[]], 8) == [[]]


def test_a_tuned_cache_is_saved_and_loaded(tmp_path):
    tiny_lm.folder(tmp_path / "lm")
    config = VideoLMConfig(
        dim=tiny_lm.DIM,
        language_model=str(tmp_path / "lm"),
        compressor={"name": "pool", "retention": 1 / 16},
        cache={"name": "vst", "retention": 0.5, "window": 1},
    )
    model = build_video_lm(config)
    module = InstructionTuning({"rates": {"cache": 0.01}, "align_weight": 0.0}, model)
    trained = {n for n, p in module.model.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith("cache.") for name in trained)
    with torch.no_grad():
        model.cache.token.add_(1.0)
    save_pretrained(tmp_path / "model", model, config)
    loaded = load_pretrained(tmp_path / "model").model
    model.eval()
    scores = [m.answers(batch(), [["shape?"], []], [[CHOICES], []])[0][0] for m in (model, loaded)]
    assert torch.equal(*scores)
