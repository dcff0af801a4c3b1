"""A tiny dataset of cached features that tells its samples apart."""

from pathlib import Path

import pytest
import torch

from vxl_lightning.data.manifest import Encoding
from vxl_lightning.data.schema import Sample, Turn
from vxl_lightning.data.shards import ShardWriter

ENCODING = Encoding({"name": "toy"}, "0123456789abcdef", fps=2.0, max_frames=8, grid=(2, 2), dim=4)


def make_sample(index: int) -> Sample:
    turns = (Turn("human", "<image>\nWhich number?"), Turn("gpt", str(index)))
    return Sample(f"clip-{index:03d}", f"clip-{index:03d}.mp4", turns, {"split": "train"})


def write_features(root: Path, count: int, max_samples: int = 5) -> Path:
    generator = torch.Generator().manual_seed(count)
    with ShardWriter(root, "features", ENCODING, max_samples=max_samples) as writer:
        for i in range(count):
            frames = 2 + i % 3
            features = torch.randn(frames, 2, 2, 4, generator=generator) + i
            writer.add_features(make_sample(i), features, torch.arange(frames) / 2.0)
    return root


@pytest.fixture(scope="session")
def features_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features") / "set", 22)
