"""The loader alone: order, ranks, padding, workers, and errors out of workers."""

from pathlib import Path

import pytest
import torch
from tests.data.conftest import make_sample
from torch import Tensor

from vxl_lightning.data.batch import Clip, FrameBatch, collate
from vxl_lightning.data.datamodule import VideoDataModule
from vxl_lightning.data.decoding import write_video
from vxl_lightning.data.loader import ClipDataset, ClipLoader, Order, derived_seed
from vxl_lightning.data.shards import ShardReader, ShardWriter
from vxl_lightning.encoders.base import EncodedFrames, Encoder
from vxl_lightning.errors import UserError


def keys(loader: ClipLoader) -> list[str]:
    return [k for batch in loader for k in batch.keys]


def test_order_is_a_permutation_of_every_pass() -> None:
    order = Order(10, seed=3)
    first, second = ([order[i] for i in range(s, s + 10)] for s in (0, 10))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second and first == [Order(10, 3)[i] for i in range(10)]
    assert first != [Order(10, 4)[i] for i in range(10)]
    assert [Order(10, None)[i] for i in range(20)] == [*range(10), *range(10)]
    assert derived_seed("order", 1, 23) != derived_seed("order", 12, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_share_the_stream(features_dir: Path, workers: int) -> None:
    clips = ClipDataset(ShardReader(features_dir))
    alone = ClipLoader(clips, batch_size=8, seed=1, num_workers=workers)
    ranks = [ClipLoader(clips, 4, seed=1, rank=r, world_size=2, num_workers=workers) for r in (0, 1)]
    assert len(alone) == 2 and [len(r) for r in ranks] == [2, 2]
    together = [a.keys + b.keys for a, b in zip(*ranks, strict=True)]
    assert together == [b.keys for b in alone]
    assert [b.position.stop for b in ranks[1] if b.position] == [8, 16]


def test_what_is_left_over_opens_the_next_pass(features_dir: Path) -> None:
    clips, consumed, seen = ClipDataset(ShardReader(features_dir)), 0, []
    loader = ClipLoader(clips, 8, seed=1, start=lambda: consumed)
    for _ in range(11):
        for batch in loader:
            seen += batch.keys
            assert batch.position is not None
            consumed = batch.position.stop
    assert consumed == 11 * 16 == 8 * 22
    assert {seen.count(k) for k in seen} == {8} and len(set(seen)) == 22


@pytest.mark.parametrize(("batch_size", "world"), [(5, 1), (4, 3), (7, 4)])
def test_evaluation_covers_everything_once(features_dir: Path, batch_size: int, world: int) -> None:
    clips = ClipDataset(ShardReader(features_dir))
    ranks = [ClipLoader(clips, batch_size, rank=r, world_size=world) for r in range(world)]
    assert len({len(list(r)) for r in ranks}) == 1
    seen = []
    for loader in ranks:
        for batch in loader:
            assert batch.position is not None and len(batch) > 0
            seen += batch.keys[: len(batch) - batch.position.repeats]
    assert sorted(seen) == [f"clip-{i:03d}" for i in range(22)]


def test_batches_are_padded(features_dir: Path) -> None:
    batch = next(iter(ClipLoader(ClipDataset(ShardReader(features_dir)), 3)))
    assert not isinstance(batch, FrameBatch)
    assert batch.grid.features.shape == (3, 4, 2, 2, 4) and batch.grid.features.dtype == torch.float32
    assert batch.grid.frame_mask.sum(1).tolist() == [2, 3, 4]
    assert batch.grid.features[0, 2:].abs().sum() == 0
    assert batch.samples == [make_sample(i) for i in range(3)]
    batch.grid.check()


def test_collate_keeps_importance_only_if_all_have_it() -> None:
    clips = [
        Clip(str(i), make_sample(i), torch.zeros(2, 1, 1, 4), torch.arange(2.0), torch.ones(2, 1, 1)) for i in range(2)
    ]
    assert collate(clips).grid.importance is not None
    without = Clip("2", make_sample(2), torch.zeros(2, 1, 1, 4), torch.arange(2.0))
    assert collate([*clips, without]).grid.importance is None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_is_one_line(tmp_path: Path, workers: int) -> None:
    with ShardWriter(tmp_path / "set", "video") as writer:
        writer.add_video(make_sample(0), b"not a video")
    loader = ClipLoader(ClipDataset(ShardReader(tmp_path / "set")), 1, num_workers=workers)
    with pytest.raises(UserError) as error:
        list(loader)
    assert "clip-000" in str(error.value) and "\n" not in str(error.value)


def test_too_small_a_dataset(features_dir: Path) -> None:
    with pytest.raises(UserError, match=r"22 samples cannot fill one step of 4 x 8.*at most 5"):
        ClipLoader(ClipDataset(ShardReader(features_dir)), 8, seed=0, world_size=4)


class MeanColour(Encoder):
    """Mean colour of each quarter of a frame."""

    def __init__(self) -> None:
        super().__init__(Encoder.Config())
        self.dim, self.grid, self.frame_size = 3, (2, 2), (32, 32)

    def encode(self, frames: Tensor) -> EncodedFrames:
        cells = torch.nn.functional.avg_pool2d(frames.float() / 255, 16).permute(0, 2, 3, 1)
        return EncodedFrames(cells, cells.mean(-1))


def test_videos_are_encoded_after_transfer(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "set", "video") as writer:
        for i, count in enumerate((4, 6)):
            frames = torch.zeros(count, 3, 64, 64, dtype=torch.uint8)
            frames[:, i] = 200
            write_video(tmp_path / "v.mp4", frames, 2.0)
            writer.add_video(make_sample(i), tmp_path / "v.mp4")
    module = VideoDataModule(val=tmp_path / "set", batch_size=2, encoder=MeanColour(), fps=2.0, max_frames=5)
    module.setup()
    [raw] = list(module.val_dataloader())
    batch = module.on_after_batch_transfer(raw, 0)
    assert batch.grid.shape == (2, 5, 2, 2, 3)
    assert batch.grid.frame_mask.sum(1).tolist() == [4, 5]
    assert batch.grid.features[0, :4, :, :, 0].mean() > 0.6 and batch.grid.features[1, :, :, :, 1].mean() > 0.6
    assert batch.grid.importance is not None and batch.grid.features[0, 4].abs().sum() == 0
    assert not batch.grid.features.is_inference()  # training may save it for the backward pass


def test_datamodule_refuses(features_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a dataset"):
        VideoDataModule(train=tmp_path)
    with pytest.raises(UserError, match="batch_size=0"):
        VideoDataModule(train=features_dir, batch_size=0)
    stale = VideoDataModule(train=features_dir, encoder=MeanColour())
    with pytest.raises(UserError, match="stale features"):
        stale.setup()
    with ShardWriter(tmp_path / "set", "video") as writer:
        writer.add_video(make_sample(0), b"x")
    with pytest.raises(UserError, match="name an encoder"):
        VideoDataModule(train=tmp_path / "set").setup()
    with pytest.raises(UserError, match="val: no dataset"):
        VideoDataModule(train=features_dir).reader("val")
    assert VideoDataModule(train=features_dir, batch_size=3).steps_per_epoch(2) == 3


@pytest.mark.parametrize(("asked", "named"), [({"fps": 4.0}, "fps=2"), ({"max_frames": 32}, "max_frames=8")])
def test_features_of_another_sampling_are_refused_by_name(
    features_dir: Path, asked: dict[str, float], named: str
) -> None:
    VideoDataModule(train=features_dir, fps=2.0, max_frames=8).setup()
    with pytest.raises(UserError, match=f"stale features: made with {named}"):
        VideoDataModule(train=features_dir, **asked).setup()
