"""The laws of cache compressors."""

import copy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from vxl_lightning.caches.forward import forward
from vxl_lightning.testing.case import (
    BF16_TOLERANCE,
    FLOAT_TOLERANCE,
    Law,
    NotApplicable,
    expect,
    expect_equal,
    expect_finite,
)
from vxl_lightning.testing.case_cache import (
    HEAD,
    HIDDEN,
    LONG,
    PER_STRETCH,
    STRETCHES,
    TIME_TEXT,
    CacheCase,
    CacheInput,
    language_model,
    prompt,
    told,
)
from vxl_lightning.testing.laws_common import COMMON, gradients_finite


def shapes_and_dtypes(case: CacheCase) -> None:
    """Memory has a tensor of keys and one of values a layer, ``[1, kv_heads, m, head_dim]``, in the prompt's dtype."""
    module, sample = case.build(), case.sample()
    memory, shape = case.memory(module, sample), case.runtime["shape"]
    want = (1, shape.kv_heads, len(memory), shape.head_dim)
    for name, tensors in (("keys", memory.keys), ("values", memory.values)):
        expect(len(tensors) == shape.layers, f"{name} of {len(tensors)} layers, the language model has {shape.layers}")
        for i, x in enumerate(tensors):
            expect(tuple(x.shape) == want, f"{name} of layer {i} must be {want}, got {tuple(x.shape)}")
            dtype = sample.passage.embeds.dtype
            expect(x.dtype == dtype, f"{name} of layer {i} must be {dtype}, got {x.dtype}")
    expect_finite(told(memory, sample), "on ordinary input")


def kv_length_kept(case: CacheCase) -> None:
    """As many keys are recalled as ``kv_length`` announced from the layout alone; at most where ``budget`` is bound."""
    module: Any = case.build()
    for counts in ([PER_STRETCH] * STRETCHES, [PER_STRETCH] * LONG, [3, 5, 1, 4, 7, 2, 2, 6, 4, 1, 3]):
        passage = prompt(counts)
        announced = module.kv_length(replace(passage, embeds=torch.zeros_like(passage.embeds)))
        expect(isinstance(announced, int), f"kv_length gave {announced!r}, not an int")
        got = len(case.memory(module, case.of(passage)))
        fits = got <= announced if case.example.budget == "bound" else got == announced
        expect(fits, f"{got} keys are recalled of stretches of {counts} visual tokens, kv_length announced {announced}")


def retention_kept(case: CacheCase) -> None:
    """``kv_length`` is what ``Config.retention`` asks for, to one group of stretches; text may stay or go with them."""
    module: Any = case.build()
    visual, text = LONG * PER_STRETCH, LONG * TIME_TEXT
    announced = module.kv_length(prompt([PER_STRETCH] * LONG)) - HEAD
    retention, slack = module.config.retention, module.stretches_per_group * (PER_STRETCH + TIME_TEXT)
    least, most = retention * (visual + text) - slack, retention * visual + text + slack
    expect(
        least <= announced <= most,
        f"retention={retention:g} of {visual} visual tokens and {text} of time text is {least:g} to {most:g} keys, "
        f"kv_length announced {announced} beside the head",
    )


def position_follows(case: CacheCase) -> None:
    """The next token's position lies behind all that is recalled, and not behind the end of the prompt."""
    sample = case.sample()
    memory = case.memory(case.build(), sample)
    n = len(sample.passage)
    expect(
        len(memory) <= memory.position <= n,
        f"position={memory.position} after {len(memory)} keys of a prompt of {n} places",
    )


def parts_equal_whole(case: CacheCase) -> None:
    """A prompt read in parts, however it is cut, leaves what it leaves when read at once."""
    module: Any = case.build()
    sample = case.sample()
    whole = case.call(module, sample)
    for cut in _cuts(len(sample.passage)):
        state, model = None, language_model()
        for begin, end in pairwise(cut):
            part = sample.passage.part(begin, end)
            state = module.read(model, part, state, last=end == cut[-1])
        memory = module.recall(model, state, sample.query)
        expect_equal(told(memory, sample), whole, f"when cut at {cut[1:-1]}", FLOAT_TOLERANCE)


def _cuts(n: int) -> list[list[int]]:
    """Place by place, within the head, at its end, within and between stretches, and three by chance."""
    size = TIME_TEXT + PER_STRETCH
    cuts = [list(range(n + 1)), [0, 2, n], [0, HEAD, HEAD + 1, n], [0, HEAD + 3 * size, HEAD + 4 * size + 3, n]]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        cuts.append([0, *torch.randperm(n - 1, generator=generator)[:5].add(1).sort().values.tolist(), n])
    return cuts


def asking_changes_nothing(case: CacheCase) -> None:
    """A question in the middle, and a second one at the end, find and leave what they would without the other."""
    module: Any = case.build()
    sample, model = case.sample(), language_model()
    whole = case.call(module, sample)
    middle = HEAD + 5 * (TIME_TEXT + PER_STRETCH) + 2
    first, rest = sample.passage.part(0, middle), sample.passage.part(middle, len(sample.passage))
    half = module.read(model, first, last=False)
    so_far = told(case.memory(module, replace(sample, passage=rest.part(0, 0)), half), sample)
    want = case.call(module, replace(sample, passage=first))
    expect_equal(so_far, want, "in the middle of a prompt that goes on", FLOAT_TOLERANCE)
    state = module.read(model, rest, half)
    for what in ("after a question in its middle", "for the second question at its end"):
        got = told(module.recall(model, state, sample.query), sample)
        expect_equal(got, whole, what, FLOAT_TOLERANCE)


def exact_at_one(case: CacheCase) -> None:
    """Where ``exact_at_one``: with ``retention=1`` a question reads what it reads in plain causal attention."""
    if not case.example.exact_at_one:
        raise NotApplicable("does not claim to be exact at retention=1")
    module = case.with_params({**case.params, "retention": 1.0}).build()
    sample = case.sample()
    joined = torch.cat([sample.passage.embeds, sample.question])
    want = forward(language_model(), joined, None, torch.arange(len(joined)))[0][len(sample.passage) :]
    got = case.call(module, sample)["states"]
    expect_equal({"states": got}, {"states": want}, "from plain causal attention", FLOAT_TOLERANCE)


def short_prompts(case: CacheCase) -> None:
    """A head alone, a single stretch, stretches without a head, without time text or with nothing else: all work."""
    module: Any = case.build()
    for what, passage in (
        ("a head alone", prompt([])),
        ("a single stretch", prompt([PER_STRETCH])),
        ("a single visual token", prompt([1], head=0, text=0)),
        ("no head", prompt([PER_STRETCH] * 5, head=0)),
        ("no time text", prompt([PER_STRETCH] * 5, text=0)),
        ("a stretch without visual tokens", prompt([0, PER_STRETCH, 0, 0])),
        ("stretches that begin late", prompt([PER_STRETCH] * 5, first=11)),
    ):
        try:
            sample = case.of(passage)
            announced, memory = module.kv_length(passage), case.memory(module, sample)
        except Exception as e:
            expect(False, f"{what}: {type(e).__name__}: {e}")
        fits = len(memory) <= announced if case.example.budget == "bound" else len(memory) == announced
        expect(fits, f"{what}: {len(memory)} keys are recalled, kv_length announced {announced}")
        expect_finite(told(memory, sample), f"on {what}")


class _Interrupted(Exception):
    pass


def model_left_alone(case: CacheCase) -> None:
    """The language model is left as it was, no hook in it and no weight changed; also when its pass is interrupted."""
    module: Any = case.build()
    sample, model = case.sample(), copy.deepcopy(language_model())
    before, weights = _traces(model), copy.deepcopy(model.state_dict())
    module.start_from(model)
    state = module.read(model, sample.passage)
    module.recall(model, state, sample.query)
    expect(_traces(model) == before, f"left in the model: {sorted(_traces(model) ^ before)}")

    def interrupt(*_: Any) -> None:
        raise _Interrupted

    for what, work in (
        ("read", partial(module.read, model, sample.passage)),
        ("recall", partial(module.recall, model, state, sample.query)),
    ):
        handle = model.base_model.layers[1].mlp.register_forward_pre_hook(interrupt)
        try:
            work()
        except _Interrupted:
            pass
        finally:
            handle.remove()
        left = sorted(_traces(model) ^ before)
        expect(not left, f"left in the model after {what} was interrupted: {left}; use a context manager")
    expect_equal(model.state_dict(), weights, "after it was read with")


def _traces(model: nn.Module) -> set[str]:
    """What can be seen of a model but its weights: hooks, attributes, modes."""
    found = set()
    for name, module in model.named_modules():
        found |= {f"{name}.{key}" for key in vars(module)}
        found |= {f"{name}.{key} of {len(hooks)}" for key, hooks in vars(module).items() if key.endswith("_hooks")}
        found |= {f"{name}.training={module.training}"}
    return found | {f"{name} requires {p.requires_grad}, {p.dtype}" for name, p in model.named_parameters()}


def wrong_inputs_refused(case: CacheCase) -> None:
    """Embeddings of another width, stretches that fall, and NaN in the query are a ValueError."""
    module: Any = case.build()
    sample = case.sample()
    passage, model = sample.passage, language_model()
    wide = replace(passage, embeds=torch.zeros(len(passage), HIDDEN + 1))
    back = replace(passage, stretch=passage.stretch.flip(0))
    wrong = [("another width", replace(sample, passage=wide)), ("falling stretches", replace(sample, passage=back))]
    if sample.query is not None:
        wrong.append(("NaN in the query", replace(sample, query=torch.full_like(sample.query, float("nan")))))
    for what, given in wrong:
        try:
            module.recall(model, module.read(model, given.passage), given.query)
        except ValueError:
            continue
        expect(False, f"{what}: accepted; call the contract's own read and recall")


def end_respected(case: CacheCase) -> None:
    """To recall from a prompt that goes on, and to read on in one that has ended, is a ValueError."""
    module: Any = case.build()
    sample, model = case.sample(), language_model()
    first, rest = sample.passage.part(0, 20), sample.passage.part(20, len(sample.passage))
    half = module.read(model, first, last=False)
    whole = module.read(model, rest, half)
    for what, work in (
        ("recall before the end", partial(module.recall, model, half, sample.query)),
        ("read behind the end", partial(module.read, model, rest, whole)),
    ):
        try:
            work()
        except ValueError:
            continue
        expect(False, f"{what} was accepted")


def answers_train(case: CacheCase) -> None:
    """The loss of an answer gives finite gradients to every parameter and to the visual embeddings."""
    module = case.build().train()
    parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
    trainable = bool(case.example.trainable)
    expect(bool(parameters) == trainable, f"trainable={trainable}, but {len(parameters)} parameters require gradients")
    for what, sample in (("ordinary", case.sample()), ("all-zero", case.constant(0.0))):
        module.zero_grad()
        embeds = sample.passage.embeds.clone().requires_grad_()
        states = case.call(module, case.with_features(sample, embeds))["states"]
        expect(states.requires_grad, "the states of a question do not depend on what was read: is it under no_grad?")
        (states.float() * torch.linspace(-1.0, 1.3, states.numel()).view(states.shape)).sum().backward()
        for name, p in parameters.items():
            expect(p.grad is not None, f"parameter {name} receives no gradient; distributed training would wait for it")
            finite = p.grad is None or bool(torch.isfinite(p.grad).all())
            expect(finite, f"the gradient of {name} is not finite on {what} embeddings")
        gradient = torch.zeros_like(embeds) if embeds.grad is None else embeds.grad
        expect(bool(torch.isfinite(gradient).all()), f"the gradient of {what} embeddings is not finite")
        reached = bool(gradient[sample.passage.visual].any())
        expect(reached or what == "all-zero", "no visual embedding receives a gradient: nothing before it can learn")


def bf16_agrees(case: CacheCase) -> None:
    """In bfloat16 a question reads what it reads in float32, to `BF16_TOLERANCE`.

    Compared at ``retention=1`` where what is recalled depends on the question: rounding may turn a close choice.
    """
    if case.example.needs_query:
        case = replace(case, params={**case.params, "retention": 1.0})
    sample = case.sample()
    half = CacheInput(
        replace(sample.passage, embeds=sample.passage.embeds.bfloat16()),
        sample.question.bfloat16(),
        None if sample.query is None else sample.query.bfloat16(),
    )
    rounded = CacheInput(
        replace(sample.passage, embeds=half.passage.embeds.float()),
        half.question.float(),
        None if half.query is None else half.query.float(),
    )
    module, reference = case.build().to(torch.bfloat16), case.build()
    reference.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in module.state_dict().items()})
    got, want = case.call(module, half), case.call(reference, rounded)
    expect(got["states"].dtype == torch.bfloat16, f"bfloat16 in, {got['states'].dtype} out")
    gap = float(((got["states"].float() - want["states"]).norm() / want["states"].norm()).detach())
    expect(gap <= BF16_TOLERANCE, f"states differ between bfloat16 and float32 by {gap:.3g} of their norm")


CACHE_LAWS: tuple[Law, ...] = (
    shapes_and_dtypes,
    kv_length_kept,
    retention_kept,
    position_follows,
    parts_equal_whole,
    asking_changes_nothing,
    exact_at_one,
    short_prompts,
    model_left_alone,
    wrong_inputs_refused,
    end_respected,
    answers_train,
    bf16_agrees,
    *(law for law in COMMON if law is not gradients_finite),  # `answers_train` asks for more
)
