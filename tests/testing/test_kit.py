"""How the kit reports: exceptions, inapplicable laws, a broken contract, and its two front doors."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vxl_lightning import registry
from vxl_lightning.compressors.uniform import UniformFrames
from vxl_lightning.encoders.base import EncodedFrames, Encoder
from vxl_lightning.errors import UserError
from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.testing import check_plugin, laws, parametrize_laws
from vxl_lightning.tokens import VideoGrid


class LargestFirst(Masker):
    """No chance in it."""

    known_exceptions = {"varies_with_seed": "the largest cells are always the ones"}  # noqa: RUF012

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        _, _, h, w, _ = grid.shape
        return Mask(
            hide_top(grid.features.float().sum(-1), grid, [self.num_hidden(n, h, w) for n in grid.num_frames.tolist()])
        )


class Undeclared(LargestFirst):
    known_exceptions: dict[str, str] = {}  # noqa: RUF012


class Needless(LargestFirst):
    known_exceptions = {**LargestFirst.known_exceptions, "exact_count": "rounds"}  # noqa: RUF012


class Misspelt(LargestFirst):
    known_exceptions = {"varies_with_seeds": "no chance in it"}  # noqa: RUF012


class Unbuildable(LargestFirst):
    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"ratio": 2.0}]


def outcomes(cls: type, **kwargs: Any) -> dict[str, tuple[str, str]]:
    return {r.law: (r.outcome, r.detail) for r in check_plugin("masker", cls, **kwargs)}


def test_declared_exception_is_reported_with_its_reason() -> None:
    outcome, detail = outcomes(LargestFirst)["varies_with_seed"]
    assert outcome == "exception" and detail.startswith("the largest cells are always the ones")


def test_undeclared_exception_is_a_broken_law_that_names_the_parameters() -> None:
    outcome, detail = outcomes(Undeclared)["varies_with_seed"]
    assert outcome == "broken" and "'ratio': 0.5" in detail
    assert outcomes(Undeclared, expected_failures={"varies_with_seed": "as the caller says"})["varies_with_seed"][
        0
    ] == ("exception")


def test_exception_whose_law_holds_is_reported() -> None:
    results = {r.law: r for r in check_plugin("masker", Needless)}
    assert results["exact_count"].outcome == "needless exception" and not results["exact_count"].ok
    assert results["varies_with_seed"].ok


def test_exception_that_names_no_law_breaks_the_contract() -> None:
    outcome, detail = outcomes(Misspelt)["contract"]
    assert outcome == "broken" and "did you mean 'varies_with_seed'" in detail


def test_nothing_is_skipped_silently() -> None:
    results = check_plugin("masker", Unbuildable)
    assert [r.law for r in results] == list(laws("masker"))
    assert results[0].outcome == "broken" and "ratio=2.0" in results[0].detail
    assert all(r.outcome == "not applicable" and "not tried" in r.detail for r in results[1:])


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_plugin("masker", LargestFirst)
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="no masker 'tubes' is installed"):
        check_plugin("masker", "tubes")


def test_every_law_says_what_it_demands() -> None:
    for kind in registry.CONTRACTS:
        assert all(text.strip() for text in laws(kind).values())


def test_parametrize_laws_in_a_plugins_own_tests() -> None:
    broken = dict(zip(laws("masker"), parametrize_laws("masker", Undeclared).args[1], strict=True))
    broken["exact_count"]()
    with pytest.raises(AssertionError, match="Undeclared: varies_with_seed is broken"):
        broken["varies_with_seed"]()
    declared = dict(zip(laws("masker"), parametrize_laws("masker", LargestFirst).args[1], strict=True))
    with pytest.raises(pytest.xfail.Exception, match="always the ones"):
        declared["varies_with_seed"]()
    with pytest.raises(pytest.skip.Exception, match="needs nothing"):
        declared["side_inputs_required"]()


class Thumbnail(Encoder):
    """Mean colour of each quarter."""

    dim, grid, frame_size = 3, (2, 2), (8, 8)

    def encode(self, frames: Tensor) -> EncodedFrames:
        cells = frames.float().unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2))
        return EncodedFrames(self.finish(cells.permute(0, 2, 3, 1)))

    def finish(self, features: Tensor) -> Tensor:
        return features

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"batch_frames": 8}]


class PromisesImportance(Thumbnail):
    gives_importance = True


class SeesItsNeighbours(Thumbnail):
    def finish(self, features: Tensor) -> Tensor:
        return features - features.mean(0)


class TakesAnything(Thumbnail):
    def forward(self, frames: Tensor) -> EncodedFrames:
        size = self.frame_size
        return super().forward(torch.nn.functional.pad(frames, (0, size[1] - frames.shape[3])).to(torch.uint8))


class NewEveryTime(Thumbnail):
    def fingerprint(self) -> str:
        return str(id(self))


class CarriesGradient(Thumbnail):
    def forward(self, frames: Tensor) -> EncodedFrames:
        with torch.inference_mode():
            super().forward(frames)
        return EncodedFrames(self.encode(frames).features.requires_grad_())


class Noisy(Thumbnail):
    def finish(self, features: Tensor) -> Tensor:
        return features + 1e-4 * torch.rand_like(features)


class WritesToFrames(Thumbnail):
    def encode(self, frames: Tensor) -> EncodedFrames:
        return super().encode(frames.clamp_(max=250))


class Homeless(Thumbnail):
    Config = int  # type: ignore[assignment]


def test_encoder_that_keeps_all() -> None:
    assert [r for r in check_plugin("encoder", Thumbnail) if r.outcome != "kept"] == []


class BringsNoWeights(Thumbnail):
    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return []


def test_encoder_without_test_parameters_says_that_nothing_was_tried() -> None:
    contract, *others = check_plugin("encoder", BringsNoWeights)
    assert contract.outcome == "kept"
    assert all(r.outcome == "not applicable" and "offers no get_test_params" in r.detail for r in others)
    assert all(r.outcome == "kept" for r in check_plugin("encoder", BringsNoWeights, params=[{"batch_frames": 2}]))


ENCODERS = {
    "contract": Homeless,
    "shapes_and_dtypes": PromisesImportance,
    "frames_independent": SeesItsNeighbours,
    "wrong_frames_refused": TakesAnything,
    "fingerprint_stable": NewEveryTime,
    "frozen": CarriesGradient,
    "deterministic": Noisy,
    "inputs_not_mutated": WritesToFrames,
}


def test_every_encoder_law_has_its_wrong_plugin() -> None:
    assert list(ENCODERS) == list(laws("encoder"))


@pytest.mark.parametrize("law", ENCODERS)
def test_encoder_guilty_of_one_law(law: str) -> None:
    assert [r.law for r in check_plugin("encoder", ENCODERS[law]) if not r.ok] == [law]


def test_what_is_around_a_package_that_is_not_installed_is_not_tried() -> None:
    class Around(UniformFrames):
        requires = ("a_module_that_is_not_there",)

        def __init__(self, config: object, dim: int) -> None:
            raise AssertionError("built")

    results = check_plugin("compressor", Around)
    assert {r.outcome for r in results} == {"not applicable"} and all(r.ok for r in results)
    assert results[0].detail == "not tried: a_module_that_is_not_there is not installed"
