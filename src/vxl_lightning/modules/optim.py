"""AdamW with a learning rate for every part, linear warm-up, then half a cosine; shared by all modules."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedule.

    The number of steps is known before training starts and is not asked of the Trainer, whose estimate
    needs the data loader and differs between strategies.
    """

    steps: int = 1000
    """Optimiser steps of the whole run; the learning rate reaches its end there."""
    lr: float = 1e-3
    """Peak learning rate of parts that have none of their own."""
    warmup: float = 0.05
    """Fraction of the steps over which the rate rises linearly."""
    final: float = 0.0
    """Rate at the last step, as a fraction of the peak."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; vectors (norms, biases, embeddings of one row) get none."""
    beta2: float = 0.99
    """Second AdamW beta; below the usual 0.999, for runs of hundreds of steps."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1, the optimiser steps of the run")
        for name in ("lr", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}={value} must be a finite number, at least 0")
        if not 0 <= self.warmup < 1 or not 0 <= self.final <= 1:
            raise ValueError(f"warmup={self.warmup} must be in [0, 1) and final={self.final} in [0, 1]")

    def factor(self, step: int) -> float:
        """Share of the peak rate that the update after ``step`` finished ones uses; never zero before the last."""
        rise = self.warmup * self.steps
        if step < rise:
            return (step + 1) / (rise + 1)
        progress = min((step - rise) / max(self.steps - rise, 1), 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(
    parts: Mapping[str, nn.Module], config: OptimConfig, rates: Mapping[str, float] | None = None
) -> Any:
    """What ``LightningModule.configure_optimizers`` returns.

    Args:
        parts: named modules; a parameter that several share belongs to the first. Frozen ones are left out.
        rates: peak learning rate of a part, where it is not ``config.lr``; 0 leaves the part out.

    Raises:
        ValueError: a rate for a part that does not exist, or nothing to train.
    """
    rates = dict(rates or {})
    unknown = sorted(set(rates) - set(parts))
    if unknown:
        raise ValueError(f"learning rate for unknown part {unknown[0]!r}; parts: {', '.join(parts)}")
    seen: set[int] = set()
    groups: list[dict[str, Any]] = []
    for name, module in parts.items():
        rate = rates.get(name, config.lr)
        fresh = [p for p in module.parameters() if p.requires_grad and id(p) not in seen]
        seen.update(id(p) for p in fresh)
        if rate == 0:
            continue
        matrices, vectors = [p for p in fresh if p.ndim > 1], [p for p in fresh if p.ndim <= 1]
        for params, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if params:
                groups.append({"params": params, "lr": rate, "weight_decay": decay, "name": name})
    if not groups:
        raise ValueError(f"nothing to train in {', '.join(parts)}: every parameter is frozen or its learning rate is 0")
    optimizer = torch.optim.AdamW(groups, betas=(0.9, config.beta2))
    schedule = LambdaLR(optimizer, config.factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
