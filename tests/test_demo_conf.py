"""The demo's configurations: what is said of one must hold of the other."""

from pathlib import Path

import yaml

CONF = Path(__file__).parents[1] / "conf" / "demo"


def test_seeds_repeats_the_demo() -> None:
    demo, seeds = (yaml.safe_load((CONF / name).read_text()) for name in ("ablate.yaml", "seeds.yaml"))
    assert seeds.pop("cache") == f"{demo['out']}/cache"
    rows = seeds.pop("variants")
    assert {name: rows[name] for name in demo["variants"]} == demo.pop("variants")
    for key in ("name", "out", "seeds"):
        assert demo.pop(key) != seeds.pop(key)
    assert seeds == demo
