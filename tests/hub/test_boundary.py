"""Every family: nothing lost changes nothing, what is lost is lost as announced, and the model is as it was."""

import pytest
import torch
from tests.hub import tiny_families as tiny

from vxl_lightning import registry
from vxl_lightning.hub import compressing

SILENT = [tiny.VIDEO, tiny.IMAGE]
"""A random model would say these too."""
GREEDY = {"do_sample": False, "suppress_tokens": SILENT}
WITHOUT_LOSS = [
    None,
    {"name": "none"},
    {"name": "uniform", "retention": 1.0},
    {"name": "pool", "retention": 1.0, "frames_per_group": 1},
]
WITH_LOSS = [
    {"name": "uniform", "retention": 0.5},
    {"name": "pool", "retention": 0.25, "frames_per_group": 2, "block_aspect": 4.0},
    {"name": "random", "retention": 0.25},
    {"name": "dtd", "retention": 0.5},
    {"name": "evs", "retention": 0.3},
    {"name": "vidcom2", "retention": 0.4},
    {"name": "bipartite", "retention": 0.5},
]


def build(spec):
    if spec is None:
        return None
    if spec["name"] not in {p.name for p in registry.installed("compressor")}:
        pytest.skip(f"the plugin {spec['name']} is not installed")
    return registry.build("compressor", spec, dim=32)


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def family(request):
    return request.param, tiny.model(request.param), tiny.inputs(request.param)


def stand(name, model, given):
    """Position ids as the model itself makes them, and what follows each row."""
    ids, mask = given["input_ids"], given["attention_mask"]
    if name.startswith("qwen"):
        told = {k: v for k, v in given.items() if k in ("video_grid_thw", "mm_token_type_ids", "second_per_grid_ts")}
        return model.model.get_rope_index(ids, attention_mask=mask, **told)[0]
    return (mask.cumsum(-1) - 1).clamp(min=0)


def placeholders(name, ids):
    """``[n]`` places of the cells of a row."""
    places = ((ids == tiny.VIDEO) | (ids == tiny.IMAGE)).nonzero()[:, 0]
    return places[:-1] if name == "llava_onevision" else places


def thinned(name, given, source):
    """The attention mask that hides the cells which no token carries."""
    mask = given["attention_mask"].clone()
    for row, carrier in enumerate(source):
        mask[row, placeholders(name, given["input_ids"][row])[carrier.flatten() < 0]] = 0
    return mask


@torch.no_grad()
@pytest.mark.parametrize("spec", WITHOUT_LOSS, ids=str)
def test_without_loss_the_logits_are_those_of_the_model_alone(family, spec):
    name, model, given = family
    alone = model(**given).logits
    with compressing(model, build(spec)) as boundary:
        announced, wrapped = boundary.announced(given), model(**given).logits
    real = given["attention_mask"].bool()
    assert torch.allclose(wrapped[real], alone[real], atol=1e-5, rtol=0)
    assert announced.sequence_length == given["input_ids"].shape[1] and announced.grid_tokens == announced.visual_tokens
    assert float((alone[0, -1] - alone[1, -1]).abs().max()) > 0.1, "the logits tell something"


@torch.no_grad()
@pytest.mark.parametrize("spec", WITH_LOSS, ids=str)
def test_lengths_are_as_announced_and_positions_those_of_the_original(family, spec):
    name, model, given = family
    with compressing(model, build(spec)) as boundary:
        announced = boundary.announced(given)
        out = model(**given, position_ids=stand(name, model, given), use_cache=True)
    report = boundary.last
    counts = report.counts
    if announced.exact:
        assert counts == announced
    else:
        assert spec["name"] == "dtd" and counts.text_tokens == announced.text_tokens
        assert all(here <= most for here, most in zip(counts.visual_tokens, announced.visual_tokens, strict=True))
    assert sum(announced.visual_tokens) < sum(announced.grid_tokens)
    assert out.logits.shape[1] == report.position_ids.shape[-1] == counts.sequence_length
    assert out.cache.get_seq_length() == report.cache_length == counts.sequence_length
    original = stand(name, model, given)
    for row, tokens in enumerate(report.tokens):
        cells = placeholders(name, given["input_ids"][row])
        t, h, w = tiny.cells(name)[row]
        nearest = (tokens.position - 0.5).ceil().long()
        place = cells[(nearest[:, 0] * h + nearest[:, 1]) * w + nearest[:, 2]]
        text = given["attention_mask"][row].bool()
        text[cells] = False
        order = torch.cat([text.nonzero()[:, 0], place]).sort().values
        expected = original[..., row, order]
        assert torch.equal(report.position_ids[..., row, report.mask[row]], expected)
        assert int(report.mask[row].sum()) == counts.visual_tokens[row] + counts.text_tokens[row]


@torch.no_grad()
@pytest.mark.parametrize(
    "spec", [{"name": "uniform", "retention": 0.5}, {"name": "random", "retention": 0.25}], ids=str
)
def test_a_method_that_drops_gives_what_the_model_alone_gives_with_those_cells_masked(family, spec):
    name, model, given = family
    position = stand(name, model, given)
    with compressing(model, build(spec)) as boundary:
        wrapped = model(**given, position_ids=position).logits
    hidden = thinned(name, given, [tokens.source[0] for tokens in boundary.last.tokens])
    alone = model(**{**given, "attention_mask": hidden}, position_ids=position).logits
    assert 0 < int(hidden.sum()) < int(given["attention_mask"].sum())
    assert torch.allclose(wrapped[boundary.last.mask], alone[hidden.bool()], atol=2e-5, rtol=0)


@torch.no_grad()
def test_answers_are_those_of_a_loop_that_computes_everything_anew_each_time(family):
    name, model, given = family
    with compressing(model, build({"name": "uniform", "retention": 0.5})) as boundary:
        said = model.generate(**given, max_new_tokens=6, **GREEDY)[:, given["input_ids"].shape[1] :]
        sources = [tokens.source[0] for tokens in boundary.last.tokens]
        beams = model.generate(**given, max_new_tokens=6, num_beams=3, **GREEDY)
    assert said.tolist() == recomputed(name, model, given, sources, 6)
    assert beams.shape == (2, given["input_ids"].shape[1] + 6)


def recomputed(name, model, given, sources, steps):
    """Greedy answers of the model alone, without a cache, the cells that were dropped masked."""
    mask, position = thinned(name, given, sources), stand(name, model, given)
    given = dict(given)
    said = []
    for _ in range(steps):
        logits = model(**{**given, "attention_mask": mask}, position_ids=position, use_cache=False).logits
        token = logits[:, -1:].index_fill(-1, torch.tensor(SILENT), -torch.inf).argmax(-1)
        said.append(token)
        given["input_ids"] = torch.cat([given["input_ids"], token], 1)
        if "mm_token_type_ids" in given:
            given["mm_token_type_ids"] = torch.cat([given["mm_token_type_ids"], torch.zeros_like(token)], 1)
        mask = torch.cat([mask, torch.ones_like(token)], 1)
        position = torch.cat([position, position[..., -1:] + 1], -1)
    return torch.cat(said, 1).tolist()


@torch.no_grad()
def test_beams_without_loss_are_those_of_the_model_alone(family):
    name, model, given = family
    more = {"max_new_tokens": 5, "num_beams": 3, **GREEDY}
    alone = model.generate(**given, **more)
    with compressing(model, build({"name": "pool", "retention": 1.0, "frames_per_group": 1})):
        assert torch.equal(model.generate(**given, **more), alone)


@torch.no_grad()
def test_steps_taken_by_hand_are_those_of_the_model_alone_where_nothing_is_lost(family):
    name, model, given = family

    def steps():
        out = model(**single(name, given), use_cache=True)
        said = []
        for _ in range(3):
            said.append(out.logits[:, -1])
            out = model(input_ids=torch.tensor([[17]]), cache=out.cache, use_cache=True)
        return torch.cat(said)

    alone = steps()
    with compressing(model, build({"name": "uniform", "retention": 1.0})):
        assert torch.allclose(steps(), alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_one_row_gives_what_it_gives_in_a_batch(family):
    name, model, given = family
    with compressing(model, build({"name": "uniform", "retention": 0.5})):
        both = model.generate(**given, max_new_tokens=4, **GREEDY)[:, -4:]
        assert torch.equal(model.generate(**single(name, given), max_new_tokens=4, **GREEDY)[:, -4:], both[:1])


@torch.no_grad()
def test_time_and_newline_tokens_are_read_as_before(family):
    name, model, given = family
    text = given["attention_mask"].bool() & (given["input_ids"] != tiny.VIDEO) & (given["input_ids"] != tiny.IMAGE)
    seen = {}
    inner = model.model.text_model if name == "smolvlm" else model.model.language_model

    def keep(module, _given, kwargs):
        seen[len(seen)] = kwargs["inputs_embeds"], kwargs["attention_mask"].bool()

    with compressing(model, build({"name": "uniform", "retention": 0.5})):
        hook = inner.register_forward_pre_hook(keep, with_kwargs=True)
        model(**given)
        hook.remove()
    for row in range(2):
        read = seen[0][0][row][seen[0][1][row]]
        for vector in inner.embed_tokens(given["input_ids"][row][text[row]]):
            assert bool((read == vector).all(-1).any())
        if name == "llava_onevision":
            assert bool((read == model.model.image_newline).all(-1).any())


@torch.no_grad()
@pytest.mark.parametrize("fails", [False, True])
def test_leaving_restores_the_model_byte_for_byte(family, fails):
    name, model, given = family

    def state():
        hooks = [
            (path, {k: dict(v) for k, v in vars(module).items() if k.endswith("hooks") or "_hooks_with" in k})
            for path, module in model.named_modules()
        ]
        own = [(path, sorted(k for k in vars(module) if k != "rope_deltas")) for path, module in model.named_modules()]
        return {k: v.clone() for k, v in model.state_dict().items()}, hooks, own

    before = state()
    alone = model(**given).logits
    try:
        with compressing(model, build({"name": "uniform", "retention": 0.5})):
            model.generate(**given, max_new_tokens=2, **GREEDY)
            if fails:
                raise RuntimeError("something else")
    except RuntimeError:
        assert fails
    after = state()
    assert before[0].keys() == after[0].keys() and all(torch.equal(before[0][k], after[0][k]) for k in before[0])
    assert before[1:] == after[1:]
    assert torch.equal(model(**given).logits, alone)


def single(name, given):
    """The first row alone, which has no padding."""
    found = {k: v[:1] for k, v in given.items()}
    if "video_grid_thw" in given:
        patches, tokens = int(given["video_grid_thw"][0].prod()), tiny.cells(name)[0]
        found["pixel_values_videos"] = given["pixel_values_videos"][:patches]
        if "video_compression_mask" in given:
            found["video_compression_mask"] = given["video_compression_mask"][: tokens[0] * tokens[1] * tokens[2]]
    elif name == "internvl":
        found["pixel_values"] = given["pixel_values"][: tiny.FRAMES]
    return found
