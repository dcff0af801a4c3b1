"""The pretraining module under a real Trainer, on grids small enough to learn by heart."""

from dataclasses import dataclass, replace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from vxl_lightning import config as configuration
from vxl_lightning.data.batch import ClipBatch, Position
from vxl_lightning.errors import UserError
from vxl_lightning.maskers.adaptive import AdaptiveMasker
from vxl_lightning.models.recot import DecoderConfig
from vxl_lightning.modules.optim import OptimConfig
from vxl_lightning.modules.pretraining import PretrainingConfig, ReconstructivePretraining
from vxl_lightning.tokens import VideoGrid

TINY = PretrainingConfig(
    dim=8,
    compressor={"name": "dts", "retention": 1 / 4, "reduction": "saliency", "depth": 1},
    masker={"name": "random", "ratio": 0.75},
    decoder=DecoderConfig(width=32, heads=2),
    optim=OptimConfig(steps=6, lr=1e-2),
)


@dataclass
class Batch:
    grid: VideoGrid


def loader(batch_size: int = 2) -> DataLoader:
    grids = torch.randn(4, 4, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    return DataLoader(
        TensorDataset(grids), batch_size, collate_fn=lambda rows: Batch(VideoGrid.of(torch.stack([r[0] for r in rows])))
    )


def make(config: PretrainingConfig = TINY) -> ReconstructivePretraining:
    torch.manual_seed(0)
    return ReconstructivePretraining(config)


def fit(module: ReconstructivePretraining, steps: int, path, **kwargs) -> L.Trainer:
    resume = kwargs.pop("ckpt_path", None)
    quiet: dict = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = L.Trainer(max_steps=steps, accelerator="cpu", default_root_dir=path, **quiet, **kwargs)
    trainer.fit(module, loader(), loader(), ckpt_path=resume, weights_only=True)
    return trainer


@pytest.mark.parametrize("objective", ["masked", "autoencode"])
def test_overfits_below_the_copies(objective, tmp_path):
    config = replace(TINY, objective=objective, optim=OptimConfig(steps=120, lr=2e-2))
    trainer = fit(make(config), 120, tmp_path, check_val_every_n_epoch=60)
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    ratios = {k: logged[f"val/error_over_{k}"] for k in ("mean", "window_mean", "previous")}
    trained = {k: logged[f"train/error_over_{k}"] for k in ratios}
    if objective == "masked":
        assert max(ratios.values()) < 0.9
    else:  # trained on what it sees, measured on what it does not
        assert max(trained.values()) < 0.9 and all(ratios[k] > trained[k] for k in ratios)
    assert logged["val/gain"] == pytest.approx(1 - max(ratios["mean"], ratios["window_mean"]))


def test_resumed_equals_uninterrupted(tmp_path):
    whole = make()
    fit(whole, 6, tmp_path)
    first = make()
    fit(first, 2, tmp_path).save_checkpoint(tmp_path / "half.ckpt")  # two steps are one epoch
    torch.manual_seed(7)
    resumed = ReconstructivePretraining(TINY)
    fit(resumed, 6, tmp_path, ckpt_path=tmp_path / "half.ckpt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_masks_differ_between_steps_and_seeds():
    module, other = make(), make(replace(TINY, seed=1))
    grid = next(iter(loader())).grid
    masks = [
        m.masker(grid, m._generator(*key)).hidden for m in (module, other) for key in ((0, 0, 0), (0, 1, 0), (1, 0, 0))
    ]
    assert len({m.numpy().tobytes() for m in masks}) == 6


def test_hyperparameters_are_plain_and_load_back(tmp_path):
    module = make()
    fit(module, 1, tmp_path).save_checkpoint(tmp_path / "a.ckpt")
    loaded = ReconstructivePretraining.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert loaded.config == module.config
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), loaded.parameters(), strict=True))


def test_from_yaml_and_overrides(tmp_path):
    (tmp_path / "run.yaml").write_text("dim: 8\nmasker: tube\ndecoder:\n  width: 32\n")
    made = configuration.load(PretrainingConfig, [tmp_path / "run.yaml"], ["objective=autoencode", "optim.steps=3"])
    module = ReconstructivePretraining(made)
    assert (module.masker.config.ratio, module.config.optim.steps, module.config.objective) == (0.5, 3, "autoencode")


def test_from_lightning_cli(tmp_path):
    from lightning.pytorch.cli import LightningCLI

    cli = LightningCLI(
        args={
            "model": {
                "class_path": "vxl_lightning.modules.pretraining.ReconstructivePretraining",
                "init_args": {"config": {"dim": 8, "compressor": {"name": "dts"}, "optim": {"steps": 3}}},
            },
            "trainer": {"logger": False, "accelerator": "cpu"},
        },
        run=False,
        subclass_mode_model=True,
        model_class=L.LightningModule,
        save_config_callback=None,
    )
    assert isinstance(cli.model, ReconstructivePretraining)
    assert cli.model.config.optim.steps == 3


def test_nothing_to_train_is_refused():
    with pytest.raises(UserError, match="compressor=pool has nothing to train"):
        make(replace(TINY, compressor={"name": "pool"}))


def gradients(masker_weight: float) -> dict[str, torch.Tensor]:
    """Of one step with a masker that learns."""
    module = make(replace(TINY, masker_weight=masker_weight))
    module.masker = AdaptiveMasker(AdaptiveMasker.Config(heads=2, window=4, ratio=0.75), 8)
    module.log = lambda *a, **k: None
    module._step(next(iter(loader())), "train", torch.Generator().manual_seed(0)).backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def test_a_masker_that_learns_is_taught_and_the_model_is_not_bent_to_it():
    taught, untaught = gradients(1e-2), gradients(0.0)
    assert taught.keys() == untaught.keys()
    masker = [name for name in taught if name.startswith("masker.")]
    assert "masker.logit.weight" in masker
    assert float(taught["masker.logit.weight"].abs().sum()) > 0
    assert all(float(untaught[name].abs().sum()) == 0 for name in masker)
    for name in taught.keys() - set(masker):
        assert torch.equal(taught[name], untaught[name]), name


def test_the_maskers_weight_is_not_negative():
    with pytest.raises(ValueError, match="masker_weight=-1"):
        replace(TINY, masker_weight=-1)


def test_unknown_objective():
    with pytest.raises(ValueError, match="objective='guess'"):
        replace(TINY, objective="guess")


def test_a_batch_that_stands_in_teaches_and_measures_nothing():
    module = make()
    module.log = lambda *a, **k: None
    batch = next(iter(loader()))
    samples = [None] * batch.grid.shape[0]
    plain = ClipBatch(batch.grid, samples, [], Position(0, 2))
    stands_in = ClipBatch(batch.grid, samples, [], Position(0, 2, repeats=2))
    metric = module.metrics["val_mean"]
    assert module.validation_step(plain, 0) > 0
    measured = metric.error.clone()
    assert module.validation_step(stands_in, 0) == 0 and torch.equal(metric.error, measured) and measured > 0
