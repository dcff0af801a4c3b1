"""Sources: split once, found in packages, errors that name the fix."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from vxl_lightning.data.synth.footage import SOURCES, Footage, Source, load, locate
from vxl_lightning.errors import UserError

ROOT = Path(__file__).parents[3]


def test_every_source_is_on_one_side() -> None:
    assert len({s.name for s in SOURCES}) == len({(s.package, s.path) for s in SOURCES}) == len(SOURCES)
    assert Counter(s.split for s in SOURCES)["test"] >= 4
    rooms = [{s.split for s in SOURCES if s.package == package} for package in ("pose2sim", "sports2d")]
    assert all(len(sides) == 1 for sides in rooms)


def test_every_package_is_pinned_or_a_dependency() -> None:
    pinned = {line.split("==")[0] for line in (ROOT / "constraints/demo.txt").read_text().splitlines() if "==" in line}
    assert {s.package for s in SOURCES} - {"scikit-learn"} <= pinned


def test_photograph_from_an_installed_package() -> None:
    china = next(s for s in SOURCES if s.name == "china")
    frames = load(china, short_side=64)
    assert frames.dtype == torch.uint8 and frames.shape == (1, 3, 128, 192)
    assert float(frames.float().std()) > 20


@pytest.mark.parametrize(
    ("package", "path", "match"),
    [
        ("no-such-footage", "a.mp4", "'no-such-footage', not installed: pip install --no-deps -r constraints/demo.txt"),
        ("scikit-learn", "images/gone.jpg", r"has no file .*images/gone.jpg; take its pinned version"),
        ("scikit-learn", "hina.jpg", "has no file"),
    ],
)
def test_errors_name_the_fix(package: str, path: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        locate(Source("gone", package, path, "train", "MIT"))


def test_films_by_length_and_photographs_in_turn() -> None:
    def source(name: str) -> Source:
        return Source(name, "none", f"{name}.mp4", "train", "MIT")

    footage = Footage(
        [(source("short"), torch.zeros(10, 3, 2, 2)), (source("long"), torch.zeros(90, 3, 2, 2))],
        [(source("photo"), torch.zeros(1, 3, 2, 2))],
    )
    generator = torch.Generator().manual_seed(0)
    drawn = [footage.draw(i, generator)[0].name for i in range(400)]
    assert drawn[1::2] == ["photo"] * 200
    assert 150 < Counter(drawn)["long"] < 200
