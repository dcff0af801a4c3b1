"""Configuration: layers, shorthands, and errors that name the fix."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from vxl_lightning import config
from vxl_lightning.errors import UserError


@dataclass(frozen=True)
class Inner:
    steps: int = 10
    """Optimiser steps."""
    rate: float = 1e-3


@dataclass
class Run:
    seed: int = 0
    """Seed of everything."""
    compressor: dict[str, Any] = config.component("compressor", "pool", retention=0.25)
    masker: dict[str, Any] = config.component("masker", None)
    inner: Inner = field(default_factory=Inner)


def test_layers_are_merged_in_order(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 1\ninner:\n  steps: 5\n")
    run = config.load(Run, [file], ["inner.steps=7"])
    assert (run.seed, run.inner.steps, run.inner.rate) == (1, 7, 1e-3)


def test_shorthand_names_a_plugin_and_fills_in_its_parameters() -> None:
    assert config.load(Run).compressor["retention"] == 0.25
    run = config.load(Run, overrides=["compressor=dts"])
    assert run.compressor["name"] == "dts"
    assert run.compressor["retention"] == 1 / 16, "the parameters of the plugin before are forgotten"
    kept = config.load(Run, overrides=["compressor=pool"])
    assert kept.compressor["retention"] == 0.25, "naming the same plugin keeps them"


def test_the_written_configuration_reads_back(tmp_path: Path) -> None:
    run = config.load(Run, overrides=["compressor=dts", "masker=tube", "inner.rate=0.5"])
    text = config.to_yaml(run)
    assert "# Seed of everything." in text and "# Optimiser steps." in text
    file = tmp_path / "again.yaml"
    file.write_text(text)
    assert config.to_plain(config.load(Run, [file])) == config.to_plain(run)
    assert OmegaConf.create(text).inner.rate == 0.5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sed=1", "did you mean 'seed'"),
        ("inner.stpes=1", "'inner.stpes' (did you mean 'steps'"),
        ("seed=abc", "seed"),
        ("seed", "not key=value"),
        ("compressor=dtss", "dts"),
        ("compressor.retentoin=0.5", "retention"),
        ("compressor.retention=2", "(0, 1]"),
    ],
)
def test_mistakes_are_named(override: str, expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        config.load(Run, overrides=[override])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml.*does not exist"):
        config.load(Run, [tmp_path / "nowhere.yaml"])
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,\n")
    with pytest.raises(UserError, match=r"broken\.yaml is not valid YAML"):
        config.load(Run, [broken])
    broken.write_text("- 1\n")
    with pytest.raises(UserError, match="mapping"):
        config.load(Run, [broken])
