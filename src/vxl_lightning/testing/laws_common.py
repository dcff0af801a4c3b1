"""Laws that compressors, maskers, selectors and caches share. Each is one function of a `Case`."""

import copy
import pickle
import random

import torch
from torch import Tensor

from vxl_lightning.testing.case import (
    FLOAT_TOLERANCE,
    Case,
    NotApplicable,
    expect,
    expect_equal,
    expect_finite,
    tensors_in,
)


def deterministic(case: Case) -> None:
    """The same module and inputs give the same outputs bit for bit, ties included, whatever the global random state."""
    module = case.build()
    for what, sample in (("ordinary", case.sample()), ("tied", case.ties())):
        outputs = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            random.seed(seed)
            outputs.append(case.call(module, sample))
        expect_equal(outputs[1], outputs[0], f"between two calls on the same {what} input")


def inputs_not_mutated(case: Case) -> None:
    """No input tensor is written to."""
    sample = case.sample()
    before = copy.deepcopy(tensors_in(sample))
    case.call(case.build(), sample)
    for name, value in tensors_in(sample).items():
        expect(torch.equal(value, before[name]), f"the input {name} was changed in place; clone it first")


def constant_features(case: Case) -> None:
    """Features that are all zero, or all the same, give finite outputs."""
    module = case.build()
    for value in (0.0, 1.0):
        expect_finite(case.call(module, case.constant(value)), f"on features that are all {value:g}")


def nan_refused(case: Case) -> None:
    """NaN or infinity in the features is a ValueError that says so, not a wrong answer."""
    module, sample = case.build(), case.sample()
    for bad in (float("nan"), float("inf")):
        features = case.features_of(sample).clone()
        features.view(-1)[features.numel() // 2] = bad
        try:
            case.call(module, case.with_features(sample, features))
        except ValueError as e:
            expect("nan" in str(e).lower(), f"{bad} in the features raised a ValueError that does not name NaN: {e}")
        else:
            expect(False, f"{bad} in the features was accepted; call forward's own checks, or VideoGrid.check()")


def state_dict_round_trip(case: Case) -> None:
    """A new instance given the ``state_dict`` behaves as the old one: nothing that matters lives outside it."""
    random.seed(0)
    old = case.build(seed=0)
    random.seed(1)
    new = case.build(seed=1)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    sample = case.sample()
    expect_equal(
        case.call(new, sample), case.call(old, sample), "after load_state_dict into a new instance", FLOAT_TOLERANCE
    )


def pickle_round_trip(case: Case) -> None:
    """Pickling keeps behaviour, as sending a module to another process needs; no lambdas or open files inside."""
    module, sample = case.build(), case.sample()
    restored = pickle.loads(pickle.dumps(module))
    expect_equal(case.call(restored, sample), case.call(module, sample), "after a pickle round trip", FLOAT_TOLERANCE)


def meta_device(case: Case) -> None:
    """Built on the meta device, given memory and a ``state_dict``, it behaves as if built directly.

    Sharded training builds modules so. A buffer that is not in the ``state_dict`` is lost on the way: register it as
    persistent, or compute it when called.
    """
    random.seed(0)
    want = case.build()
    random.seed(0)
    with torch.device("meta"):
        module = case.build()
    stay = [n for n, t in [*module.named_parameters(), *module.named_buffers()] if not t.is_meta]
    expect(not stay, f"{', '.join(stay)} not on the meta device; make tensors without naming a device in __init__")
    module = module.to_empty(device="cpu")
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.fill_(float("nan"))
    module.load_state_dict(want.state_dict())
    sample = case.sample()
    expect_equal(
        case.call(module, sample), case.call(want, sample), "when built on the meta device first", FLOAT_TOLERANCE
    )


def gradients_finite(case: Case) -> None:
    """Where ``trainable``, every parameter receives a finite gradient, on constant features too.

    Where not, there is no parameter to train. A gradient that reaches the features is finite either way.
    """
    module = case.build()
    parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if not case.example.trainable:
        expect(not parameters, f"not trainable, yet these require gradients: {', '.join(parameters)}")
    elif not parameters:
        expect(False, "trainable, but without parameters that require gradients")
    for what, sample in (("ordinary", case.sample()), ("all-zero", case.constant(0.0))):
        module.zero_grad()
        features = case.features_of(sample).clone().requires_grad_()
        outputs = case.call(module, case.with_features(sample, features))
        terms = [_weighted(v) for v in outputs.values() if v.is_floating_point() and v.requires_grad]
        if not terms:
            expect(not case.example.trainable, "trainable, but no output depends on a parameter")
            continue
        torch.stack(terms).sum().backward()
        for name, p in parameters.items():
            expect(p.grad is not None, f"parameter {name} receives no gradient; distributed training would wait for it")
            expect(p.grad is None or _finite(p.grad), f"the gradient of {name} is not finite on {what} features")
        expect(features.grad is None or _finite(features.grad), f"the gradient of {what} features is not finite")


def side_inputs_required(case: Case) -> None:
    """What the class says it needs (query, importance, motion, time) is asked for by a ValueError when missing."""
    needs = [n for n in ("query", "importance", "motion", "time") if getattr(case.example, f"needs_{n}", False)]
    if not needs:
        raise NotApplicable("needs nothing beside the features")
    module = case.build()
    for need in needs:
        try:
            case.call(module, case.without(case.sample(), need))
        except ValueError:
            continue
        expect(False, f"declares needs_{need}, but runs without it")


def _weighted(value: Tensor) -> Tensor:
    """A scalar that depends on every element, each by its own factor."""
    factor = torch.linspace(-1.0, 1.3, value.numel()).view(value.shape)
    return (value.float() * factor).sum()


def _finite(gradient: Tensor) -> bool:
    return bool(torch.isfinite(gradient).all())


COMMON = (
    deterministic,
    inputs_not_mutated,
    constant_features,
    nan_refused,
    state_dict_round_trip,
    pickle_round_trip,
    meta_device,
    gradients_finite,
    side_inputs_required,
)
