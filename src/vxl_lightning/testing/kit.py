"""Run the laws over a plugin, from Python, from pytest and from ``vxl plugin check``."""

import functools
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import torch

from vxl_lightning import registry
from vxl_lightning.testing.case import Case, Law, LawBroken, NotApplicable
from vxl_lightning.testing.case_cache import CacheCase
from vxl_lightning.testing.laws_benchmark import BENCHMARK_LAWS, BenchmarkCase
from vxl_lightning.testing.laws_cache import CACHE_LAWS
from vxl_lightning.testing.laws_compressor import COMPRESSOR_LAWS, CompressorCase
from vxl_lightning.testing.laws_encoder import ENCODER_LAWS, EncoderCase
from vxl_lightning.testing.laws_masker import MASKER_LAWS, MaskerCase
from vxl_lightning.testing.laws_selector import SELECTOR_LAWS, SelectorCase

if TYPE_CHECKING:
    import pytest

Outcome = Literal["kept", "broken", "exception", "needless exception", "not applicable"]
CONTRACT = "contract"
"""The law that comes first: the class is a plugin of its kind at all. Where it is broken no other is tried."""

_KINDS: dict[str, tuple[Callable[..., Case | BenchmarkCase], tuple[Law, ...]]] = {
    "compressor": (CompressorCase, COMPRESSOR_LAWS),
    "masker": (MaskerCase, MASKER_LAWS),
    "selector": (SelectorCase, SELECTOR_LAWS),
    "cache": (CacheCase, CACHE_LAWS),
    "encoder": (EncoderCase, ENCODER_LAWS),
    "benchmark": (BenchmarkCase, BENCHMARK_LAWS),
}


@dataclass(frozen=True)
class LawResult:
    """How one law fared.

    Attributes:
        law: its name.
        outcome: ``kept``; ``broken``; ``exception``, broken as declared; ``needless exception``, declared but kept;
            ``not applicable``.
        detail: what was seen, or the reason.
    """

    law: str
    outcome: Outcome
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.outcome in ("kept", "exception", "not applicable")


def laws(kind: str) -> dict[str, str]:
    """Names of the laws for a kind and what each demands, in the order they are run."""
    texts = {CONTRACT: "The class extends the contract, has a frozen Config, and offers test parameters that build."}
    return texts | {law.__name__: inspect.getdoc(law) or "" for law in _KINDS[kind][1]}


def check_plugin(
    kind: str,
    plugin: type | str,
    *,
    params: Sequence[Mapping[str, Any]] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[LawResult]:
    """Hold a plugin against every law of its kind, on tiny inputs (seconds, CPU).

    Args:
        kind: ``compressor``, ``masker``, ``selector``, ``cache``, ``encoder`` or ``benchmark``.
        plugin: the class, or its registered name.
        params: ``Config`` arguments to test with; the class's ``get_test_params()`` where not given.
        expected_failures: law to reason, added to the class's own ``known_exceptions``.

    Returns:
        One result a law. The plugin conforms when all are ``ok``.

    Raises:
        UserError: a name that is not installed or does not load.
    """
    cls = registry.get(kind, plugin) if isinstance(plugin, str) else plugin
    return [run() for run in _runs(kind, cls, params, expected_failures)]


def parametrize_laws(
    kind: str, plugin: type | str, *, params: Sequence[Mapping[str, Any]] | None = None
) -> "pytest.MarkDecorator":
    """Parametrise a test over the laws of a kind; each ``law`` it receives is called to test it.

    A declared exception shows as xfail with its reason, an inapplicable law as skipped with its reason.

        @parametrize_laws("compressor", MyCompressor)
        def test_law(law):
            law()
    """
    import pytest

    cls = registry.get(kind, plugin) if isinstance(plugin, str) else plugin

    def tested(run: Callable[[], LawResult]) -> Callable[[], None]:
        def law() -> None:
            result = run()
            if result.outcome == "exception":
                pytest.xfail(result.detail)
            if result.outcome == "not applicable":
                pytest.skip(result.detail)
            assert result.ok, f"{cls.__name__}: {result.law} is {result.outcome}: {result.detail}"

        return law

    runs = _runs(kind, cls, params, None)
    return pytest.mark.parametrize("law", [tested(run) for run in runs], ids=[name for name in laws(kind)])


def _runs(
    kind: str,
    cls: Any,
    params: Sequence[Mapping[str, Any]] | None,
    expected: Mapping[str, str] | None,
) -> list[Callable[[], LawResult]]:
    """One function a law, the contract's first. The others report that they were not tried where it is broken."""
    absent = [name for name in getattr(cls, "requires", ()) if find_spec(name) is None]
    if absent:
        reason = f"not tried: {absent[0]} is not installed"
        return [functools.partial(LawResult, name, "not applicable", reason) for name in laws(kind)]
    known = {**getattr(cls, "known_exceptions", {}), **(expected or {})}
    case_type, functions = _KINDS[kind]
    defect = functools.cache(lambda: _defect(kind, cls, params, known))

    def contract() -> LawResult:
        problem = defect()
        return LawResult(CONTRACT, "broken", problem) if problem else LawResult(CONTRACT, "kept")

    def one(law: Law) -> LawResult:
        name: str = law.__name__
        if defect():
            return LawResult(name, "not applicable", "not tried: the contract is broken")
        cases = _cases(case_type, cls, params)
        if not cases:
            return LawResult(name, "not applicable", "not tried: the encoder offers no get_test_params()")
        return _judge(name, [_try(law, case) for case in cases], known.get(name))

    return [contract, *(functools.partial(one, law) for law in functions)]


def _cases(
    case_type: Callable[..., Case | BenchmarkCase], cls: Any, params: Sequence[Mapping[str, Any]] | None
) -> list[Case | BenchmarkCase]:
    # An encoder need not have test parameters: its weights may be too large to bring, or not be here.
    sets = list(getattr(cls, "get_test_params", list)() if params is None else params)
    return [case_type(cls, one, sets) for one in sets]


def _defect(kind: str, cls: Any, params: Sequence[Mapping[str, Any]] | None, known: Mapping[str, str]) -> str | None:
    problem = registry.problem(kind, cls)
    if problem:
        return problem
    strange = [name for name in known if name not in laws(kind)]
    if strange:
        return f"known_exceptions names no law: {strange[0]!r}{registry.did_you_mean(strange[0], laws(kind))}"
    try:
        cases = _cases(_KINDS[kind][0], cls, params)
        with _own_randomness():
            for case in cases:
                case.build()
    except Exception as e:
        return f"get_test_params() does not build: {_described(e)}"
    return None if cases or kind == "encoder" else "get_test_params() returned nothing to test with"


def _try(law: Law, case: Case | BenchmarkCase) -> tuple[Outcome, str]:
    with _own_randomness():
        try:
            law(case)
        except NotApplicable as e:
            return "not applicable", str(e)
        except LawBroken as e:
            return "broken", f"{e} (params {dict(case.params)})"
        except Exception as e:  # whatever the plugin raised where it should not have
            return "broken", f"{_described(e)} (params {dict(case.params)})"
    return "kept", ""


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Laws seed the global generators; the caller finds them as they were."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)


def _judge(name: str, tried: list[tuple[Outcome, str]], reason: str | None) -> LawResult:
    broken = [detail for outcome, detail in tried if outcome == "broken"]
    if broken and reason is not None:
        return LawResult(name, "exception", f"{reason} ({broken[0]})")
    if broken:
        return LawResult(name, "broken", broken[0])
    if reason is not None:
        return LawResult(
            name, "needless exception", f"declared as an exception ({reason}), but the law holds; remove it"
        )
    if all(outcome == "not applicable" for outcome, _ in tried):
        return LawResult(name, "not applicable", tried[0][1])
    return LawResult(name, "kept")


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
