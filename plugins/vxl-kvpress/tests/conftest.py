"""kvpress, or presses made here in its place."""

import sys
from types import ModuleType
from typing import Any

import pytest
from vxl_kvpress.choice import library

from vxl_lightning.errors import UserError

from .presses_made_here import PRESSES


@pytest.fixture
def made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The presses above stand in for kvpress."""
    module = ModuleType("kvpress")
    for press in PRESSES:
        setattr(module, press.__name__, press)
    monkeypatch.setitem(sys.modules, "kvpress", module)


@pytest.fixture
def kvpress() -> Any:
    try:
        return library()
    except UserError as error:
        pytest.skip(str(error))
