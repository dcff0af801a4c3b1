"""Rows of a wrapped model."""

from types import SimpleNamespace

import pytest
import torch
from tests.hub import tiny_families

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation import hub
from vxl_lightning.evaluation.config import EvaluatedVariant


@pytest.fixture
def rows(monkeypatch, tmp_path):
    model = tiny_families.model("qwen2_vl")
    base = SimpleNamespace(model=model, processing=None, text_model=model.base_model.language_model)
    monkeypatch.setattr(hub, "load_hub", lambda folder, **given: base)

    def build(**variants):
        made = {name: EvaluatedVariant(**given) for name, given in variants.items()}
        return hub.hub_answerers(tmp_path, made, 8, torch.device("cpu"))

    return build


def test_none_is_without_a_selector_or_cache_as_for_models_of_ours(rows):
    found = rows(bare={"selector": "none", "cache": "none"}, chosen={"selector": "similarity", "select": 2})
    assert found["bare"].model.selector is None and found["bare"].model.cache is None
    assert found["chosen"].model.selector is not None


def test_a_part_with_weights_is_refused(rows):
    with pytest.raises(UserError, match=r"variants.a: compressor=dts has to be trained"):
        rows(a={"compressor": "dts"})
