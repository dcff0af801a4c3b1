"""From a saved model and rows to those who answer."""

from types import SimpleNamespace

import pytest

from vxl_lightning import registry
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation import models
from vxl_lightning.evaluation.config import EvaluatedVariant


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
