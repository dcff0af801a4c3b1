"""Every installed plugin, built in or not, keeps every law of its contract."""

import pytest

from vxl_lightning import registry
from vxl_lightning.testing import check_plugin

TESTED = [p for p in registry.installed() if p.kind != "encoder"]
"""Encoders bring weights that need not be installed; their own tests hold them against the laws."""


@pytest.mark.parametrize("plugin", TESTED, ids=lambda p: f"{p.kind}-{p.qualified}")
def test_keeps_every_law(plugin: registry.Plugin) -> None:
    broken = [f"{r.law} is {r.outcome}: {r.detail}" for r in check_plugin(plugin.kind, plugin.qualified) if not r.ok]
    assert not broken, "\n".join(broken)
