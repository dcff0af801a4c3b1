"""Training on damaged data: what cannot be read is left out, never replaced, named once, and too much of it stops."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tests.data.conftest import ENCODING, make_sample
from tests.data.test_resume import Execute, batches, driver, last_say, plan
from torch import Tensor

from vxl_lightning.data.batch import Clip, ClipBatch, Position, collate, stands_in
from vxl_lightning.data.datamodule import VideoDataModule
from vxl_lightning.data.loader import ClipDataset, ClipLoader, Order
from vxl_lightning.data.manifest import Manifest
from vxl_lightning.data.shards import PackedEntry, ShardReader, ShardWriter, write_shard
from vxl_lightning.errors import UserError

__all__ = ["driver"]  # a fixture

ORDER = Order(22, 5)
# The first sample of the stream, and all of the third batch of one rank, or of the first rank's second of two.
DAMAGED = sorted({ORDER[0], ORDER[6], ORDER[7], ORDER[8]})


def write_damaged(root: Path, damaged: list[int], count: int = 22) -> Path:
    generator = torch.Generator().manual_seed(count)
    with ShardWriter(root, "features", ENCODING, max_samples=5) as writer:
        for i in range(count):
            if i in damaged:
                writer.add(PackedEntry(f"clip-{i:03d}", [make_sample(i)], {"safetensors": b"damaged"}))
            else:
                writer.add_features(make_sample(i), torch.randn(2, 2, 2, 4, generator=generator) + i, torch.arange(2.0))
    return root


@pytest.fixture(scope="module")
def damaged_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_damaged(tmp_path_factory.mktemp("damaged") / "set", DAMAGED)


def wanted(start: int, stop: int) -> list[str]:
    """Keys of the stream that can be read."""
    return [f"clip-{ORDER[p]:03d}" for p in range(start, stop) if ORDER[p] not in DAMAGED]


@pytest.mark.parametrize("workers", [0, 2])
def test_left_out_and_never_replaced(damaged_dir: Path, workers: int) -> None:
    clips = ClipDataset(ShardReader(damaged_dir))
    got = list(ClipLoader(clips, 3, seed=5, num_workers=workers, leave_out=True))
    assert len(got) == 7
    for step, batch in enumerate(got):
        here = range(3 * step, 3 * step + 3)
        assert batch.position is not None
        assert (batch.position.start, batch.position.stop) == (here.start, here.stop)
        assert [f.index for f in batch.position.failed] == [ORDER[p] for p in here if ORDER[p] in DAMAGED]
        assert all("damaged" in f.reason and "\n" not in f.reason for f in batch.position.failed)
        assert stands_in(batch) == (step == 2)
        if step == 2:  # nothing of it can be read: a step that counts for nothing, on the next sample that can be
            assert batch.keys == wanted(9, 22)[:1] and batch.position.repeats == 1
        else:
            assert batch.keys == wanted(here.start, here.stop) and batch.position.repeats == 0
    with pytest.raises(UserError, match=f"clip-{ORDER[0]:03d}"):
        list(ClipLoader(clips, 3, seed=5, num_workers=workers))


def test_evaluation_leaves_out_too(damaged_dir: Path) -> None:
    ranks = [
        ClipLoader(ClipDataset(ShardReader(damaged_dir)), 3, rank=r, world_size=3, leave_out=True) for r in range(3)
    ]
    seen = [k for r in ranks for b in r if b.position for k in b.keys[: len(b) - b.position.repeats]]
    assert sorted(seen) == [f"clip-{i:03d}" for i in range(22) if i not in DAMAGED]
    assert len({len(list(r)) for r in ranks}) == 1


def test_nothing_can_be_read(tmp_path: Path) -> None:
    root = write_damaged(tmp_path / "set", list(range(4)), 4)
    with pytest.raises(UserError, match="no sample can be read"):
        list(ClipLoader(ClipDataset(ShardReader(root)), 2, seed=0, leave_out=True))


class Toy(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(4))
        self.seen: list[list[str]] = []

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        self.seen.append([] if stands_in(batch) else batch.keys)
        loss = (batch.grid.features.mean((1, 2, 3)) @ self.weight - 1).square().mean()
        return loss * 0.0 if stands_in(batch) else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def fit(data: VideoDataModule, epochs: int) -> Toy:
    module = Toy()
    quiet: dict[str, Any] = {f"enable_{n}": False for n in ("progress_bar", "model_summary", "checkpointing")}
    pl.Trainer(accelerator="cpu", max_epochs=epochs, logger=False, **quiet).fit(module, data)
    return module


@pytest.mark.parametrize("workers", [0, 2])
def test_each_key_is_logged_once_over_epochs(damaged_dir: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vxl_lightning.data.failures"):
        module = fit(VideoDataModule(damaged_dir, None, 3, workers, seed=5, max_failed=0.2), epochs=3)
    logged = [r.getMessage() for r in caplog.records if r.name == "vxl_lightning.data.failures"]
    assert sorted(m.split()[2].rstrip(":") for m in logged) == [f"clip-{i:03d}" for i in DAMAGED]
    assert [k for keys in module.seen for k in keys] == wanted(0, 63) and len(module.seen) == 21


def test_too_many_stop_the_run(damaged_dir: Path) -> None:
    with pytest.raises(UserError) as error:
        fit(VideoDataModule(damaged_dir, None, 3, seed=5, max_failed=3 / 22), epochs=1)
    message = str(error.value)
    first = f"clip-{ORDER[0]:03d}, clip-{ORDER[6]:03d}, clip-{ORDER[7]:03d}"
    assert "4 of 22 samples" in message and first in message and "max_failed" in message and "\n" not in message
    with pytest.raises(UserError, match=rf"clip-{ORDER[0]:03d}.safetensors: damaged"):
        fit(VideoDataModule(damaged_dir, None, 3, seed=5), epochs=1)
    with pytest.raises(UserError, match=r"max_failed=1.5"):
        VideoDataModule(damaged_dir, max_failed=1.5)


def test_samples_of_one_media_count_each_and_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    several = [make_sample(i) for i in range(3)]
    good = [PackedEntry(f"good-{i}", [make_sample(9)], {"png": picture()}) for i in range(3)]
    entries = [PackedEntry("bad", several, {"png": b"junk"}), *good]
    Manifest("video", None, (write_shard(tmp_path / "shard-000000.tar", entries),)).save(tmp_path)
    from tests.data.test_loader import MeanColour

    class Colours(Toy):
        def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
            return self.weight.sum() * batch.grid.features.mean()

    def run(max_failed: float) -> None:
        quiet: dict[str, Any] = {f"enable_{n}": False for n in ("progress_bar", "model_summary", "checkpointing")}
        data = VideoDataModule(tmp_path, None, 2, encoder=MeanColour(), max_failed=max_failed)
        pl.Trainer(accelerator="cpu", max_epochs=2, logger=False, **quiet).fit(Colours(), data)

    with caplog.at_level(logging.WARNING, "vxl_lightning.data.failures"):
        run(0.5)
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["left out bad"]
    with pytest.raises(UserError, match=r"3 of 6 samples cannot be read.*: bad;"):
        run(0.4)


def picture() -> bytes:
    import io

    from PIL import Image

    target = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 0, 0)).save(target, "PNG")
    return target.getvalue()


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 2)])
def test_killed_and_resumed_is_never_killed(
    driver: Execute, features_dir: Path, damaged_dir: Path, tmp_path: Path, world: int, workers: int
) -> None:
    options = {"world": world, "workers": workers, "max_failed": 0.2, "val": str(features_dir), "steps": 9}
    whole = plan(tmp_path, damaged_dir, "whole", **options)
    torn = plan(tmp_path, damaged_dir, "torn", **options)
    first, cut, final = driver([whole, {**torn, "die": ["in", 4]}, torn])
    assert cut["killed"] and "weights" in first["ranks"][0], first
    assert final["ranks"] == first["ranks"]
    assert first["ranks"][0]["weights"] == first["ranks"][-1]["weights"]
    logs = [batches(whole, r) for r in range(world)]
    assert [len(log) for log in logs] == [9] * world
    for rank in range(world):
        assert last_say(batches(torn, rank)) == [keys for _, keys in logs[rank]]
    assert [k for step in zip(*logs, strict=True) for _, keys in step for k in keys] == wanted(0, 27 * world)
    warned = re.findall(r"left out (\S+):", Path(whole["log"] + ".warnings").read_text())
    assert sorted(warned) == [f"clip-{i:03d}" for i in DAMAGED]


def test_every_rank_stops_in_the_same_step(
    driver: Execute, features_dir: Path, damaged_dir: Path, tmp_path: Path
) -> None:
    run = plan(tmp_path, damaged_dir, "stop", world=2, max_failed=3 / 22, val=str(features_dir))
    [answer] = driver([run])
    errors = [r["error"] for r in answer["ranks"]]
    assert errors[0] == errors[1] and "4 of 22 samples cannot be read" in errors[0]
    assert [len(batches(run, r)) for r in (0, 1)] == [1, 1]
    assert json.dumps(errors[0]).count("clip-") == 4


def test_what_stands_in() -> None:
    clips = [Clip("a", make_sample(0), torch.zeros(2, 1, 1, 4), torch.arange(2.0))] * 2
    assert not stands_in(collate(clips)) and not stands_in(collate(clips, Position(0, 3, repeats=1)))
    assert stands_in(collate(clips[:1], Position(0, 3, repeats=1)))
