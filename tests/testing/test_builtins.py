"""Every installed plugin, built in or not, keeps every law of its contract."""

from importlib import metadata

import pytest

from vxl_lightning import registry
from vxl_lightning.testing import check_plugin

TESTED = [p for p in registry.installed() if p.kind != "encoder"]
"""Encoders bring weights that need not be installed; those whose weights a package brings follow below."""


@pytest.mark.parametrize("plugin", TESTED, ids=lambda p: f"{p.kind}-{p.qualified}")
def test_keeps_every_law(plugin: registry.Plugin) -> None:
    results = check_plugin(plugin.kind, plugin.qualified)
    if all(r.outcome == "not applicable" for r in results):  # it is around a package that is not installed
        pytest.skip(results[0].detail)
    broken = [f"{r.law} is {r.outcome}: {r.detail}" for r in results if not r.ok]
    assert not broken, "\n".join(broken)


def test_encoder_with_packaged_weights_keeps_every_law() -> None:
    from vxl_lightning.encoders.efficientnet_lite0 import WEIGHTS_PACKAGE

    try:
        metadata.version(WEIGHTS_PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{WEIGHTS_PACKAGE} is not installed")
    results = check_plugin("encoder", "efficientnet_lite0", params=[{}, {"importance": True}])
    assert [r for r in results if not r.ok] == []
