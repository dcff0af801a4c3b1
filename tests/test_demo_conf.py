"""The demo's configurations: what is said of one must hold of the others."""

from pathlib import Path

import yaml

from vxl_lightning import registry
from vxl_lightning.ablation.config import parse_variants

CONF = Path(__file__).parents[1] / "conf"
NOT_SYSTEMS = {"chain"}
"""Ways to put others together; `slow_fast` is one that a system is made of."""


def read(name: str) -> dict:
    return yaml.safe_load((CONF / name).read_text())


def test_seeds_repeats_the_demo() -> None:
    demo, seeds = read("demo/ablate.yaml"), read("demo/seeds.yaml")
    assert seeds.pop("cache") == f"{demo['out']}/cache"
    rows = seeds.pop("variants")
    assert {name: rows[name] for name in demo["variants"]} == demo.pop("variants")
    for key in ("name", "out", "seeds"):
        assert demo.pop(key) != seeds.pop(key)
    assert seeds == demo


def test_the_systems_are_held_against_each_other_as_the_demo_does_it() -> None:
    demo, systems = read("demo/ablate.yaml"), read("ablate_systems.yaml")
    assert systems.pop("cache") == f"{demo['out']}/cache"
    rows = systems.pop("variants")
    assert demo.pop("variants").items() <= rows.items()
    for key in ("name", "out", "budgets"):
        assert demo.pop(key) != systems.pop(key)
    assert systems == demo


def test_every_system_has_a_row_at_each_budget_it_can_meet() -> None:
    systems = read("ablate_systems.yaml")
    variants = parse_variants(systems["variants"])
    named = {v.compressor["name"] for v in variants.values()}
    installed = {p.name for p in registry.installed("compressor") if p.distribution.startswith("vxl-")}
    assert named == installed - NOT_SYSTEMS
    for name, variant in variants.items():
        for budget in variant.budgets or systems["budgets"] if name != "none" else []:
            compressor = registry.build("compressor", {**variant.compressor, "retention": budget}, dim=256)
            assert compressor.num_tokens(32, 4, 4) == 512 * budget
