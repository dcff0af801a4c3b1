"""A tuned model as one who answers."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.evaluation.needles import tiny_road

from vxl_lightning import registry
from vxl_lightning.ablation import identity
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.answerer import Asked, Shown
from vxl_lightning.evaluation.embedded import VideoLMAnswerer
from vxl_lightning.hub.reduce import Reducer
from vxl_lightning.tokens import VideoGrid


@pytest.fixture
def patient():
    """A compressor that needs three frames."""
    compressor = registry.build("compressor", {"name": "uniform", "retention": 0.5}, dim=4)
    compressor.min_frames = 3
    return compressor


def test_a_video_too_short_for_a_compressor_is_refused_as_a_question_that_cannot_be_asked(patient):
    grid = VideoGrid.of(torch.zeros(1, 1, 2, 2, 4))
    eyes = SimpleNamespace(look=lambda shown: (grid, {"decode": 0.0, "encode": 0.0}))
    answerer = VideoLMAnswerer(SimpleNamespace(compressor=patient), eyes, {}, 8)
    with pytest.raises(UserError, match="1 frames of 2 x 2 cells: UniformFrames needs at least 3 frames; look at more"):
        next(answerer.replies(Shown(Path("v.mp4"), [0.0]), [Asked("Which?")]))


def test_so_it_is_inside_a_wrapped_model(patient):
    with pytest.raises(UserError, match="compressor=UniformFrames needs at least 3 frames, this video has 2"):
        Reducer(patient, None, 0, 0.0, 4).announced((2, 2, 2))


def test_its_replies_depend_on_how_it_is_asked(patient):
    """An edited way of looking at a video gives other replies, which are no longer those that are known."""
    answerer = VideoLMAnswerer(SimpleNamespace(compressor=patient), None, {}, 8)
    assert answerer.identity["environment"]["code"] != identity.environment()["code"]


def test_a_model_in_half_precision_is_shown_a_grid_of_its_own():
    """Encoders give what they compute with, and a linear map takes no other number format than its own."""
    model = tiny_road.model().bfloat16()
    grid = VideoGrid.of(torch.randn(1, 8, 4, 4, model.compressor.dim), torch.arange(8)[None] / 2)
    eyes = SimpleNamespace(look=lambda shown: (grid, {"decode": 0.0, "encode": 0.0}))
    (reply,) = VideoLMAnswerer(model, eyes, {}, 2).replies(Shown(Path("v.mp4"), [0.0]), [Asked("Which?")])
    assert reply.counts["visual_tokens"] and reply.milliseconds["answer"]
