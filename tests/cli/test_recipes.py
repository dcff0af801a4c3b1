"""``vxl data prune`` and ``vxl data why``: what a user sees. What recipes do is in tests/curation."""

import json
from pathlib import Path

import pytest
import torch

from vxl_lightning.cli.main import main
from vxl_lightning.config import load
from vxl_lightning.curation.recipe import Recipe
from vxl_lightning.data.decoding import write_video

RECIPES = Path(__file__).parents[2] / "data_recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.name)
def test_every_recipe_is_read(path: Path) -> None:
    assert load(Recipe, [path]).name == path.stem


def test_off_is_a_word_and_not_a_boolean() -> None:
    assert load(Recipe, [], ["redundancy.static.mode=off"]).redundancy.static.mode == "off"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nowhere.yaml"], "does not exist"),
        (["out=x"], "media_root is empty"),
        (["redundancy.statc.mode=off"], "did you mean 'static'"),
        (["redundancy.static.mode=maybe"], "'off', 'score', 'enforce'"),
        (["engine=spark"], "'local', 'ray'"),
        (["select.strategy=best"], "'stratified', 'random', 'all'"),
        (['necessity.language_model=""'], "both empty"),
    ],
)
def test_what_cannot_be_is_one_line(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prune", *given]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_run_says_what_it_did_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "media").mkdir()
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(8, 3, 6, 6, generator=generator) * 255
    write_video(tmp_path / "media/a.mp4", torch.nn.functional.interpolate(small, (64, 64)).byte(), 4)

    def record(name: str, video: str, answer: str) -> dict[str, object]:
        turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": answer}]
        return {"id": name, "video": video, "conversations": turns}

    records = [record("good", "a.mp4", "a bird"), record("lost", "b.mp4", "a bird"), record("mute", "a.mp4", "...")]
    (tmp_path / "x.json").write_text(json.dumps(records))
    given = [
        "datasets=[{json_path: x.json}]", f"annotation_root={tmp_path}", f"media_root={tmp_path / 'media'}",
        f"out={tmp_path / 'out'}", "workers=1",
    ]  # fmt: skip
    assert main(["data", "prune", *given]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "missing: b.mp4" in said and "3 samples read = 1 kept + 1 dropped + 1 quarantined" in said
    assert main(["data", "why", str(tmp_path / "out"), "mute"]) == 0
    assert "dropped by rule empty_answer" in capsys.readouterr().out
    assert main(["data", "why", str(tmp_path / "out"), "lost"]) == 0
    assert "quarantined by rule media; missing" in capsys.readouterr().out
    assert main(["data", "verify", str(tmp_path / "out")]) == 0
    assert "1 shard(s) and 10 table(s)" in capsys.readouterr().out
