"""Rows with several videos, padding on the right, attention computed otherwise, half precision."""

import pytest
import torch
from tests.hub import tiny_families as tiny
from tests.hub.test_boundary import build, stand, thinned

from vxl_lightning.hub import compressing

PADDED = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl")


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "video_llama_3", "llava_onevision", "llava_next_video"])
def test_several_videos_of_a_row_are_compressed_one_by_one(name):
    model, given = tiny.model(name), tiny.inputs(name)
    first, second = tiny.cells(name)
    row = [1, *tiny.placeholders(name, first, 40), 7, 8, *tiny.placeholders(name, second, 50), 11, 12, 13]
    given["input_ids"] = torch.tensor([row])
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    if "mm_token_type_ids" in given:
        given["mm_token_type_ids"] = torch.where(given["input_ids"] == tiny.VIDEO, 2, 0)
    position = stand(name, model, given)
    with compressing(model, build({"name": "uniform", "retention": 0.5})) as boundary:
        announced, wrapped = boundary.announced(given), model(**given, position_ids=position).logits
    assert len(boundary.last.tokens) == 2 and boundary.last.counts == announced
    carriers = torch.cat([tokens.source[0].flatten() for tokens in boundary.last.tokens])
    hidden = given["attention_mask"].clone()
    places = (given["input_ids"][0] == tiny.VIDEO).nonzero()[:, 0]
    if name == "llava_onevision":  # a newline behind each
        places = torch.cat([places[:16], places[17:-1]])
    hidden[0, places[carriers < 0]] = 0
    alone = model(**{**given, "attention_mask": hidden}, position_ids=position).logits
    assert torch.allclose(wrapped[boundary.last.mask], alone[hidden.bool()], atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", PADDED)
def test_padding_on_the_right_stays_on_the_right(name):
    model, given = tiny.model(name), tiny.inputs(name)
    pad = int((given["attention_mask"][1] == 0).sum())
    for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
        if key in given:
            given[key] = torch.stack([given[key][0], given[key][1].roll(-pad)])
    position = stand(name, model, given)
    for spec in ({"name": "none"}, {"name": "uniform", "retention": 0.5}):
        with compressing(model, build(spec)) as boundary:
            wrapped = model(**given, position_ids=position).logits
        hidden = thinned(name, given, [tokens.source[0] for tokens in boundary.last.tokens])
        alone = model(**{**given, "attention_mask": hidden}, position_ids=position).logits
        assert torch.allclose(wrapped[boundary.last.mask], alone[hidden.bool()], atol=2e-5, rtol=0)
        assert bool(boundary.last.mask[:, 0].all()) and not bool(boundary.last.mask[1, -1])


@torch.no_grad()
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_eager_attention_and_half_precision_give_the_same_answers_without_loss(name):
    model, given = tiny.model(name), tiny.inputs(name)
    model.set_attn_implementation("eager")
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype)
        cast = {k: v.to(dtype) if k.startswith("pixel") else v for k, v in given.items()}
        alone = model(**cast).logits
        with compressing(model, build({"name": "uniform", "retention": 1.0})):
            wrapped = model(**cast).logits
        real = given["attention_mask"].bool()
        assert torch.allclose(wrapped[real], alone[real], atol=1e-5, rtol=0)
        with compressing(model, build({"name": "pool", "retention": 0.25, "frames_per_group": 2, "block_aspect": 4.0})):
            assert bool(model(**cast).logits.isfinite().all())
