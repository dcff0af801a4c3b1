"""A video is seen once: what crosses from vision to language is shared, and every answer is as without."""

import inspect
from dataclasses import replace

import pytest
import torch
from tests.hub import tiny_families as tiny
from tests.hub.test_boundary import build
from tests.hub.tiny_processors import processing, striped

from vxl_lightning import registry
from vxl_lightning.errors import UserError
from vxl_lightning.hub import HubVideoLM
from vxl_lightning.hub.family import family_of
from vxl_lightning.hub.vision import READ, unseen, watching

TIMES = torch.arange(4) * 0.5
ASKED = [("which shape ?", ["disk", "ring star"]), ("what colour ?", None)]


def tower(model):
    """The vision tower, and how often it has run."""
    core = model.base_model
    (found,) = (getattr(core, name) for name in ("visual", "vision_model", "vision_tower") if hasattr(core, name))
    ran = []
    found.register_forward_hook(lambda *_: ran.append(1))
    return ran


def rows(name):
    """Rows of one model: as it is, with a compressor, with a selector that reads the question."""
    model, made = tiny.model(name), processing(name)
    selector = registry.build("selector", {"name": "similarity"}, dim=32)
    return [
        HubVideoLM(model, made),
        HubVideoLM(model, made, compressor=build({"name": "uniform", "retention": 0.5})),
        HubVideoLM(model, made, selector=selector, select=1),
    ]


def alone(row, look, question):
    """The same look with its pixels, whose vision nothing has computed."""
    given = row.inputs(striped(4, 20, 30), TIMES, question)
    return replace(look, tensors={name: given[name] for name in look.tensors}, vision=None)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_rows_and_questions_share_one_run_of_the_vision_and_answer_bit_for_bit_as_with_a_run_each(name):
    made = rows(name)
    ran = tower(made[0].model)
    look = made[0].look(striped(4, 20, 30), TIMES)
    cases = [(row, *asked) for row in made for asked in ASKED]
    shared = [row.answer_about(look, question, choices, 3) for row, question, choices in cases]
    assert len(ran) == 1
    own = [row.answer_about(alone(row, look, question), question, choices, 3) for row, question, choices in cases]
    assert len(ran) == 1 + len(cases)
    for ours, theirs in zip(shared, own, strict=True):
        assert ours.text == theirs.text and ours.scores == theirs.scores and ours.counts == theirs.counts
        assert torch.equal(ours.tokens.features, theirs.tokens.features)
    assert shared[0].counts["visual_tokens"] > shared[2].counts["visual_tokens"], "rows differ behind the boundary"


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_no_more_is_held_than_the_language_model_reads(name):
    look = rows(name)[0].look(striped(4, 20, 30), TIMES)
    assert set(look.vision.read) == set(READ if name.startswith("qwen3") else READ[:1])
    (pixels,) = (tensor for key, tensor in look.tensors.items() if key.startswith("pixel_values"))
    assert pixels.shape == look.vision.encoded and pixels.untyped_storage().nbytes() == pixels.element_size()
    assert bool(pixels.isnan().all()), "a vision that looked at them would show it"


def test_an_output_that_is_written_into_leaves_the_one_that_is_held():
    vision = rows("qwen3_vl")[0].look(striped(4, 20, 30), TIMES).vision
    features = vision.output().pooler_output
    vision.output().pooler_output = None
    assert vision.output().pooler_output is features and vision.output().deepstack_features is not None


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_beams_that_a_folder_asks_for_leave_what_is_held_as_it_was(name):
    row = rows(name)[1]
    row.model.generation_config.num_beams = 2
    if "mm_encoder_outputs" not in inspect.signature(row.model.forward).parameters:
        pytest.skip("this version repeats pixels for beams, and is refused")
    look = row.look(striped(4, 20, 30), TIMES)
    own = row.answer_about(alone(row, look, "which ?"), "which ?", None, 3).text
    assert [row.answer_about(look, "which ?", None, 3).text for _ in range(2)] == [own, own]


def test_pixels_of_another_video_are_refused():
    row = rows("qwen2_vl")[0]
    look = row.look(striped(4, 20, 30), TIMES)
    other = row.inputs(striped(2, 20, 30), TIMES[:2], "which ?")
    with (
        torch.no_grad(),
        row.compressing(vision=look.vision),
        pytest.raises(UserError, match=r"pixels of shape \(32, 96\) where those of \(64, 96\)"),
    ):
        row.model(**other)


def test_contexts_within_each_other_are_left_one_by_one():
    row = rows("internvl")[0]
    core, family, given = row.model.base_model, family_of(row.model.base_model), tiny.inputs("internvl")
    heard = []
    with watching(core, family, lambda told: heard.append("outer"), None):
        with watching(core, family, lambda told: heard.append("inner"), None):
            core.get_image_features(given["pixel_values"])
        core.get_image_features(given["pixel_values"])
    core.get_image_features(given["pixel_values"])
    assert heard == ["inner", "outer", "outer"] and "get_image_features" not in vars(core)


def test_inputs_beside_pixels_stay_what_they_are():
    grid = torch.tensor([[1, 2, 2]])
    assert unseen({"video_grid_thw": grid})["video_grid_thw"] is grid


@pytest.mark.parametrize(
    ("times", "says"),
    [(TIMES.flip(0), "times must be"), (TIMES[:0], "times must be"), (TIMES[:3], "4 frames for 3 times")],
)
def test_a_look_needs_a_rising_time_for_every_frame(times, says):
    with pytest.raises(UserError, match=says):
        rows("llava_next_video")[0].look(striped(4, 20, 30).split(2), times)
