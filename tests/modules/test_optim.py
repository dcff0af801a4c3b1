"""The schedule's shape and which parameters get which rate."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from vxl_lightning.modules.optim import OptimConfig, build_optimizer


def test_rises_then_falls_to_its_end():
    config = OptimConfig(steps=100, warmup=0.1, final=0.1)
    factors = [config.factor(i) for i in range(101)]
    assert 0 < factors[0] < factors[9] < 1 == factors[10]
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert factors[100] == pytest.approx(0.1)
    assert config.factor(10_000) == pytest.approx(0.1)


def test_without_warmup_the_first_step_has_the_full_rate():
    assert OptimConfig(steps=10, warmup=0.0).factor(0) == 1


def test_rates_by_part_shared_parameters_once_frozen_never():
    a, b, c = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    b.weight = a.weight
    c.requires_grad_(False)
    made = build_optimizer({"a": a, "b": b, "c": c}, OptimConfig(lr=1e-3, weight_decay=0.5, warmup=0.0), {"b": 1e-2})
    groups = [(g["name"], g["initial_lr"], g["weight_decay"], len(g["params"])) for g in made["optimizer"].param_groups]
    assert groups == [("a", 1e-3, 0.5, 1), ("a", 1e-3, 0.0, 1), ("b", 1e-2, 0.0, 1)]


def test_rate_zero_leaves_a_part_out():
    made = build_optimizer({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}, OptimConfig(), {"a": 0.0})
    assert {g["name"] for g in made["optimizer"].param_groups} == {"b"}


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown part 'lm'"):
        build_optimizer({"a": nn.Linear(2, 2)}, OptimConfig(), {"lm": 1e-3})
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer({"a": nn.Linear(2, 2).requires_grad_(False)}, OptimConfig())
    with pytest.raises(ValueError, match="steps=0"):
        OptimConfig(steps=0)


def test_last_update_is_not_wasted():
    made = build_optimizer({"a": nn.Linear(2, 2)}, OptimConfig(steps=5, warmup=0.0))
    schedule, used = made["lr_scheduler"]["scheduler"], []
    for _ in range(5):
        used.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        schedule.step()
    assert min(used) > 0
    assert torch.tensor(used).diff().max() < 0
