"""Cache compressors inside wrapped models: what loses nothing changes nothing, what moves keys goes on behind them."""

import pytest
import torch
from tests.hub import tiny_families as tiny
from tests.hub.test_boundary import GREEDY, build, single

from vxl_lightning import registry
from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.errors import UserError
from vxl_lightning.hub import compressing

DEEP = ("qwen3_vl", "qwen3_vl_moe")
"""Features are added behind the first layers, which no cache reads."""
LINEAR = ("llava_onevision", "llava_next_video", "smolvlm", "internvl", "video_llama_3")
FULL, CHUNKED = {"name": "full"}, {"name": "chunked", "previous": -1, "retention": 1.0, "block": 2}
LOSSY = [
    {"name": "vst", "retention": 0.5, "window": 2},
    {"name": "quantized", "retention": 0.5, "window": 8, "block": 1},
    {"name": "chunked", "retention": 0.7, "block": 1, "previous": 1, "chunk": 1, "pool": 2},
]
AFTER = 3
"""Words that both rows have after their video."""


def cache(model, spec):
    core = model.model
    inner = getattr(core, "text_model", None) or core.language_model
    made = registry.build("cache", spec, shape=LanguageShape.of(inner))
    made.start_from(inner)
    return made


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "spec"),
    [*((name, FULL) for name in tiny.FAMILIES if name not in DEEP), *((name, CHUNKED) for name in LINEAR)],
    ids=lambda given: given["name"] if isinstance(given, dict) else given,
)
def test_what_loses_nothing_answers_as_the_model_alone(name, spec):
    model, given = tiny.model(name), tiny.inputs(name)
    logits = model(**given).logits[:, -AFTER:]
    said = model.generate(**given, max_new_tokens=5, **GREEDY)
    with compressing(model, cache=cache(model, spec)) as boundary:
        out = model(**given, use_cache=True)
        assert torch.allclose(out.logits[:, -AFTER:], logits, atol=1e-4, rtol=0)
        assert torch.equal(model.generate(**given, max_new_tokens=5, **GREEDY), said)
        beams = model.generate(**given, max_new_tokens=3, num_beams=2, **GREEDY)
    assert out.cache.get_seq_length() == boundary.last.cache_length
    assert torch.equal(beams, model.generate(**given, max_new_tokens=3, num_beams=2, **GREEDY))


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in tiny.FAMILIES if name not in DEEP])
def test_a_compressor_before_a_cache_gives_what_the_compressor_alone_gives(name):
    model, given = tiny.model(name), tiny.inputs(name)
    uniform = build({"name": "uniform", "retention": 0.5})
    with compressing(model, uniform):
        alone = model(**given).logits[:, -AFTER:]
        said = model.generate(**given, max_new_tokens=4, **GREEDY)
    with compressing(model, uniform, cache=cache(model, {"name": "full"})):
        assert torch.allclose(model(**given).logits[:, -AFTER:], alone, atol=1e-4, rtol=0)
        assert torch.equal(model.generate(**given, max_new_tokens=4, **GREEDY), said)


@torch.no_grad()
@pytest.mark.parametrize("spec", LOSSY, ids=lambda spec: spec["name"])
@pytest.mark.parametrize("name", LINEAR)
def test_what_forgets_holds_less_and_a_row_answers_as_alone(name, spec):
    model, given = tiny.model(name), tiny.inputs(name)
    compressor = cache(model, spec)
    with compressing(model, cache=compressor) as boundary:
        both = model.generate(**given, max_new_tokens=4, **GREEDY)
        assert boundary.last.cache_length < given["input_ids"].shape[1]
        first = model.generate(**single(name, given), max_new_tokens=4, **GREEDY)
        again = model.generate(**given, max_new_tokens=4, **GREEDY)
    assert torch.equal(first[0], both[0]) and torch.equal(both, again)


@torch.no_grad()
def test_what_a_cache_cannot_do_is_refused():
    qwen, given = tiny.model("qwen2_vl"), tiny.inputs("qwen2_vl")
    with compressing(qwen, cache=cache(qwen, LOSSY[0])), pytest.raises(UserError, match="time, height and width"):
        qwen(**given)
    with compressing(qwen, cache=cache(qwen, {"name": "full"})):
        qwen(**given)  # reading did not stop with the error
    llava, given = tiny.model("llava_next_video"), tiny.inputs("llava_next_video")
    with (
        compressing(llava, build({"name": "uniform", "retention": 0.5}), cache=cache(llava, LOSSY[0])),
        pytest.raises(UserError, match="further apart"),
    ):
        llava(**given)
    with compressing(llava, cache=cache(llava, {"name": "full"})), pytest.raises(UserError, match="ends with a video"):
        short = {**given, "input_ids": given["input_ids"][:1, :-5], "attention_mask": given["attention_mask"][:1, :-5]}
        llava(**{**short, "pixel_values_videos": given["pixel_values_videos"][:1]})
    deep, given = tiny.model("qwen3_vl"), tiny.inputs("qwen3_vl")
    with compressing(deep, cache=cache(deep, {"name": "full"})), pytest.raises(UserError, match="DeepStack"):
        deep(**given)
