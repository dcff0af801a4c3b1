"""From a saved model and rows to those who answer."""

from types import SimpleNamespace

import pytest
import torch
from tests import released_checkpoint, tiny_lm

from vxl_lightning import registry
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation import models
from vxl_lightning.evaluation.config import EvaluatedVariant
from vxl_lightning.models.build import AdapterConfig, VideoLMConfig, build_video_lm
from vxl_lightning.models.pretrained import save_pretrained
from vxl_lightning.models.released.convert import to_ours


@pytest.fixture
def base():
    """A model whose selector was trained with it, as far as rows look at one."""
    selector = registry.build("selector", {"name": "query_aware"}, dim=8)
    made = SimpleNamespace(selector=selector, compressor=None, cache=None, prompt=None)
    made.plain = SimpleNamespace(config=SimpleNamespace(hidden_size=8))
    return made


def test_a_trained_selector_keeps_the_parameters_that_it_was_trained_with(base):
    """Other ones were taken without a word, and the row was asked with the model's own."""
    models._same("a", {"name": "query_aware", "heads": 4}, base.selector)
    other = EvaluatedVariant(selector={"name": "query_aware", "heads": 2}, select=2)
    with pytest.raises(UserError, match=r"variants.a: selector.heads=2, .* was trained with heads=4; leave it out"):
        models._fitted(base, "a", other)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of a model, of one of other weights, and of one whose frames are sampled otherwise."""
    folder = tmp_path_factory.mktemp("saved")
    config = VideoLMConfig(
        dim=2912, language_model=str(tiny_lm.folder(folder / "lm")), adapter=AdapterConfig(rank=0),
        compressor={"name": "pool"},
    )  # fmt: skip
    for seed, (name, fps) in enumerate({"one": 4.0, "two": 4.0, "slow": 2.0}.items()):
        torch.manual_seed(seed)
        encoder = {"name": "efficientnet_lite0", "pretrained": False, "image_size": 32}
        save_pretrained(folder / name, build_video_lm(config), config, encoder=encoder, fps=fps)
    return folder


def test_a_row_may_be_another_model_which_looks_at_the_same_frames(saved):
    rows = {
        "reference": EvaluatedVariant(),
        "other": EvaluatedVariant(model=str(saved / "two")),
        "other, two groups": EvaluatedVariant(model=str(saved / "two"), selector={"name": "uniform"}, select=2),
    }
    own = models.fitted(saved / "one", rows, "cpu")
    reference, other, few = own.models.values()
    assert other is not reference and few.projector is other.projector and few.selector is not None
    assert own.depends["reference"]["weights"] != own.depends["other"]["weights"]
    alone = models.fitted(saved / "two", {"reference": EvaluatedVariant()}, "cpu")
    assert own.depends["other"] == alone.depends["reference"], "its answers are the same wherever it is asked"


def test_a_row_of_a_model_that_looks_at_other_frames_is_refused(saved):
    rows = {"reference": EvaluatedVariant(), "slow": EvaluatedVariant(model=str(saved / "slow"))}
    with pytest.raises(UserError, match="its frames are encoded or sampled otherwise"):
        models.fitted(saved / "one", rows, "cpu")


def test_half_precision_rounds_weights_and_leaves_the_places_of_a_long_video_apart(tmp_path):
    released_checkpoint.write(tmp_path / "source", released_checkpoint.tensors())
    to_ours(tmp_path / "source", tmp_path / "model")
    rows = {"reference": EvaluatedVariant()}
    half, full = (models.fitted(tmp_path / "model", rows, "cpu", p) for p in ("float16", "auto"))
    ours, theirs = half.models["reference"], full.models["reference"]
    assert {p.dtype for p in (*ours.parameters(), *half.encoder.parameters())} == {torch.float16}
    assert {p.dtype for p in (*theirs.parameters(), *full.encoder.parameters())} == {torch.float32}
    # Rounded frequencies would turn keys at place 300,000 by another angle altogether.
    assert torch.equal(ours.plain.model.rotary_emb.inv_freq, theirs.plain.model.rotary_emb.inv_freq)
    assert half.depends["reference"] != full.depends["reference"]


def test_an_unknown_precision_is_told_by_its_key():
    with pytest.raises(UserError, match="precision='half' is not one of auto, float32, bfloat16, float16"):
        models.answerer_from("nowhere", precision="half")
