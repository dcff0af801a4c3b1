"""What an answer costs: tokens, cache, operations, milliseconds, memory.

`Counts` follow from shapes and repeat exactly; `Timings` are measured and do not. They are kept in
two tables for that reason.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

REPEATS, LEAST, ENOUGH_MS = 5, 3, 2000.0
"""Timed calls, of which the median is taken; after the least number no more are begun once they took enough."""


@dataclass(frozen=True)
class Counts:
    """Costs of one video and one question that follow from shapes.

    Attributes:
        grid_tokens: cells the encoder gives.
        lm_tokens: visual tokens that enter the language model.
        layer_mean_tokens: visual tokens averaged over the language model's layers; equal to
            ``lm_tokens`` unless a method drops tokens inside it.
        kv_length: cached positions when the first answer token is decoded, text included.
        kv_bytes: size of that cache.
        compressor_flops: floating-point operations of compressor and selector; a multiply-add counts as two.
        prefill_flops: of the language model over the prompt.
    """

    grid_tokens: int
    lm_tokens: int
    layer_mean_tokens: float
    kv_length: int
    kv_bytes: int
    compressor_flops: int
    prefill_flops: int


@dataclass(frozen=True)
class Timings:
    """Median milliseconds of each step for one video and one question; None where there is no such step.

    ``decode_ms`` and ``encoder_ms`` need the video file in the dataset and the encoder in the configuration.
    ``peak_memory_mib`` is the process's resident memory on CPU, the allocator's on CUDA.
    """

    decode_ms: float | None
    encoder_ms: float | None
    compressor_ms: float
    selector_ms: float | None
    prefill_ms: float
    peak_memory_mib: float


def milliseconds(work: Callable[[], Any], device: torch.device, repeats: int = REPEATS) -> float:
    """Median wall-clock milliseconds of ``work``, warmed up by a call, the device synchronised around each."""
    work()
    times: list[float] = []
    while len(times) < repeats and (len(times) < LEAST or sum(times) < ENOUGH_MS):
        _synchronise(device)
        start = time.perf_counter()
        work()
        _synchronise(device)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def flops(work: Callable[[], Any], module: nn.Module) -> int:
    """Floating-point operations of ``work`` as torch counts them: matrix products, convolutions, attention.

    The parameters of ``module`` are frozen meanwhile: torch's counter follows what needs a gradient, and fails on views
    of parameters where none is kept.
    """
    learning = [p for p in module.parameters() if p.requires_grad]
    for p in learning:
        p.requires_grad_(False)
    try:
        with FlopCounterMode(display=False) as counter:
            work()
    finally:
        for p in learning:
            p.requires_grad_()
    return int(counter.get_total_flops())


class PeakMemory:
    """Peak memory within a ``with`` block, in MiB, as ``mib``.

    On Linux the high-water mark of the resident set is reset on entry; elsewhere it is the process's
    own since its start.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.mib = float("nan")

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.mib = torch.cuda.max_memory_allocated(self.device) / 2**20
        else:
            self.mib = _resident_peak_mib()


def _resident_peak_mib() -> float:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
