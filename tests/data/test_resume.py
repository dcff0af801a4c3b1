"""Killed and resumed is the same as never killed: the same batches, the same weights, bit for bit."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vxl_lightning.data.loader import Order

SCRIPT = Path(__file__).with_name("resume_runs.py")
STEPS = 20
Run = dict[str, Any]
Execute = Callable[[list[Run]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def driver(features_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Execute]:
    """Does runs, one after the other, and gives their outcomes."""
    errors = tmp_path_factory.mktemp("driver") / "stderr"
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(features_dir)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        errors.open("w") as handle,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=handle, text=True, env=environment
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None

        def execute(runs: list[Run]) -> list[dict[str, Any]]:
            answers = []
            for run in runs:
                process.stdin.write(json.dumps(run) + "\n")
                process.stdin.flush()
                # Lightning prints to stdout, too.
                line = next((x for x in process.stdout if x.startswith("ANSWER")), None)
                assert line is not None, errors.read_text()[-3000:]
                answers.append(json.loads(line.removeprefix("ANSWER")))
            return answers

        yield execute
        process.stdin.close()


def plan(tmp_path: Path, data: Path, name: str, **options: Any) -> Run:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    common = {"data": str(data), "folder": str(folder), "log": str(folder / "log")}
    return {**common, "workers": 0, "world": 1, "steps": STEPS, "every": 2, **options}


def batches(run: Run, rank: int = 0) -> list[tuple[int, list[str]]]:
    """Everything a rank trained on, in the order it happened: (step, keys)."""
    return [tuple(json.loads(line)) for line in Path(f"{run['log']}.{rank}").read_text().splitlines()]


def last_say(log: list[tuple[int, list[str]]]) -> list[list[str]]:
    """The batch of each step; steps done twice, because a kill came before their checkpoint, must agree."""
    by_step: dict[int, list[str]] = {}
    for step, keys in log:
        assert by_step.setdefault(step, keys) == keys
    assert sorted(by_step) == list(range(len(by_step)))
    return [by_step[s] for s in sorted(by_step)]


def stream(count: int) -> list[str]:
    order = Order(22, 5)
    return [f"clip-{order[i]:03d}" for i in range(count)]


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2)])
def test_killed_and_resumed_is_never_killed(
    driver: Execute, features_dir: Path, tmp_path: Path, world: int, workers: int
) -> None:
    per_epoch = 22 // (3 * world)
    dice = random.Random(world * 10 + workers)
    # Two random steps, each of the two ways, and the last step of an epoch, where Lightning's own counting is delicate.
    deaths = [
        ["in", dice.randint(1, per_epoch - 1)],
        ["after", 2 * per_epoch],
        ["in", dice.randint(2 * per_epoch + 1, STEPS - 3)],
        ["after", STEPS - 1],
    ]
    options = {"world": world, "workers": workers}
    whole = plan(tmp_path, features_dir, "whole", **options)
    torn = plan(tmp_path, features_dir, "torn", **options)
    first, *cut, final = driver([whole, *({**torn, "die": d} for d in deaths), torn])
    assert [c["killed"] for c in cut] == [True] * len(deaths)
    assert not first["killed"] and not final["killed"]
    assert "weights" in first["ranks"][0], first
    assert final["ranks"] == first["ranks"]
    assert first["ranks"][0]["state"]["samples"] == STEPS * 3 * world
    logs = [batches(whole, r) for r in range(world)]
    assert [len(log) for log in logs] == [STEPS] * world
    for rank in range(world):
        assert last_say(batches(torn, rank)) == [keys for _, keys in logs[rank]]
        assert len(batches(torn, rank)) > STEPS  # something was lost and done again, or nothing was tested
    steps = zip(*logs, strict=True)
    assert [k for step in steps for _, keys in step for k in keys] == stream(STEPS * 3 * world)


def test_an_exception_in_a_step_does_not_count_it(driver: Execute, features_dir: Path, tmp_path: Path) -> None:
    whole = plan(tmp_path, features_dir, "whole")
    torn = plan(tmp_path, features_dir, "torn", every=100)
    first, broken, final = driver([whole, {**torn, "die": ["in", 9], "how": "raise"}, torn])
    assert broken["ranks"][0]["error"] == "RuntimeError: as asked"
    assert final["ranks"] == first["ranks"]
    assert batches(torn) == batches(whole)  # the checkpoint written on the way out makes it go on without a repeat


def test_another_world_size(driver: Execute, features_dir: Path, tmp_path: Path) -> None:
    shrink = plan(tmp_path, features_dir, "shrink", world=2, every=1)
    grow = plan(tmp_path, features_dir, "grow", every=1)
    answers = driver(
        [
            {**shrink, "die": ["after", 5]},
            {**shrink, "world": 1},
            {**shrink, "world": 1, "reshard": True, "log": shrink["log"] + "-2"},
            {**grow, "die": ["after", 5]},
            {**grow, "world": 2, "reshard": True, "log": grow["log"] + "-2"},
        ]
    )
    refused = answers[1]["ranks"][0]["error"]
    assert refused.startswith("UserError: world_size=1: the checkpoint was trained with world_size=2")
    assert "allow_reshard=true" in refused and "\n" not in refused
    # Two ranks did 5 steps of 6 samples; one rank goes on from sample 30.
    after = [k for _, keys in batches({"log": shrink["log"] + "-2"}) for k in keys]
    assert after == stream(30 + (STEPS - 5) * 3)[30:]
    assert answers[2]["ranks"][0]["state"]["samples"] == 30 + (STEPS - 5) * 3
    # One rank did 5 steps of 3 samples; two ranks go on from sample 15, in steps of 6.
    ranks = [batches({"log": grow["log"] + "-2"}, r) for r in (0, 1)]
    after = [k for step in zip(*ranks, strict=True) for _, keys in step for k in keys]
    assert after == stream(15 + (STEPS - 5) * 6)[15:]


def test_another_dataset_or_seed_is_refused(features_dir: Path, tmp_path: Path) -> None:
    from tests.data.conftest import write_features

    from vxl_lightning.data.datamodule import VideoDataModule
    from vxl_lightning.errors import UserError

    state = VideoDataModule(features_dir, seed=5).state_dict()
    other = write_features(tmp_path / "other", 23)
    with pytest.raises(UserError, match="not the dataset of the checkpoint"):
        VideoDataModule(other, seed=5).load_state_dict(state)
    with pytest.raises(UserError, match="seed=6: the checkpoint was trained with seed=5"):
        VideoDataModule(features_dir, seed=6).load_state_dict(state)
    with pytest.raises(UserError, match="batch_size=4"):
        VideoDataModule(features_dir, batch_size=4, seed=5).load_state_dict(state)
    VideoDataModule(features_dir, seed=5).load_state_dict(state)
