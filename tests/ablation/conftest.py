import pytest
from tests.ablation import tiny

from vxl_lightning.ablation.config import AblationConfig
from vxl_lightning.config import load


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A language model and shards to ablate on."""
    root = tmp_path_factory.mktemp("world")
    tiny.language_model(root / "lm")
    tiny.shards(root / "train", 16, seed=1)
    tiny.shards(root / "test", 6, seed=2)
    return root


@pytest.fixture
def make_config(world, tmp_path):
    """An `AblationConfig` of a few steps; keyword arguments become overrides."""

    def make(*overrides, out="run"):
        base = [
            f"out={tmp_path / out}", f"language_model={world / 'lm'}", f"data.train={world / 'train'}",
            f"data.test={world / 'test'}", f"data.pretrain={world / 'train'}", "adapter.rank=2",
            "warmup.align.batch_size=4", "warmup.align.optim.steps=2", "warmup.answer.batch_size=4",
            "warmup.answer.optim.steps=2", "tune.align.batch_size=4", "tune.align.optim.steps=2",
            "tune.answer.batch_size=4", "tune.answer.optim.steps=1", "pretrain.batch_size=4",
            "pretrain.optim.steps=2", "pretrain.decoder.width=16", "pretrain.decoder.heads=2",
            "evaluate.batch_size=4", "threads=1", "variants.dts.compressor.name=dts",
            "variants.dts.compressor.reduction=saliency",
        ]  # fmt: skip
        return load(AblationConfig, [], [*base, *overrides])

    return make
