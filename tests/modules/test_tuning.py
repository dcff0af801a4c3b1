import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import torch
from tests import tiny_lm

from vxl_lightning.config import to_plain
from vxl_lightning.data.batch import ClipBatch, Position
from vxl_lightning.errors import UserError
from vxl_lightning.models.build import AdapterConfig, VideoLMConfig, build_video_lm
from vxl_lightning.models.haystacks import HaystackConfig
from vxl_lightning.models.prefix import PromptConfig
from vxl_lightning.models.pretrained import save_pretrained, trained_state
from vxl_lightning.modules.optim import OptimConfig
from vxl_lightning.modules.tuning import InstructionTuning, TuningConfig
from vxl_lightning.tokens import VideoGrid

DTS = {"name": "dts", "retention": 1 / 16, "reduction": "saliency", "depth": 1}


@pytest.fixture(scope="module")
def model_config(tmp_path_factory):
    folder = str(tiny_lm.folder(tmp_path_factory.mktemp("lm")))
    return VideoLMConfig(dim=tiny_lm.DIM, language_model=folder, compressor=DTS, adapter=AdapterConfig(rank=2))


def batches(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(count):
        features = torch.randn(2, 8, 4, 4, tiny_lm.DIM, generator=generator)
        samples = [tiny_lm.sample(2 * i, 0.0, "red", "disk"), tiny_lm.sample(2 * i + 1, 5.0, "blue", "star")]
        made.append(ClipBatch(VideoGrid.of(features), samples, [s.id for s in samples]))
    return made


def fit(module, data, steps, resume=None, **extra):
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_progress_bar=False, enable_model_summary=False,
        **{"enable_checkpointing": False, **extra},
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=None), ckpt_path=resume, weights_only=True)
    return trainer


def changed(module, steps=2):
    before = {n: p.detach().clone() for n, p in module.model.named_parameters()}
    fit(module, batches(steps), steps)
    names = {n for n, p in module.model.named_parameters() if not torch.equal(p, before[n])}
    return {"adapter" if "lora_" in n else n.split(".")[0] for n in names}


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"objective": "align"}, {"compressor", "projector"}),
        ({"objective": "answer"}, {"compressor", "projector", "adapter"}),
        ({"from_words": 2}, {"adapter"}),
        ({"rates": {"compressor": 1e-2}, "align_weight": 0.0}, {"compressor"}),
    ],
)
def test_only_the_stage_s_parts_learn(model_config, settings, parts):
    assert changed(InstructionTuning(TuningConfig(**settings, optim=OptimConfig(steps=4)), model_config)) == parts


def test_layers_trained_whole_are_the_adapter(model_config):
    config = replace(model_config, adapter=AdapterConfig(rank=0, whole=["self_attn"]))
    module = InstructionTuning(TuningConfig(from_words=2, optim=OptimConfig(steps=2)), config)
    before = {n: p.detach().clone() for n, p in module.model.named_parameters()}
    fit(module, batches(2), 2)
    moved = {n for n, p in module.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {f"language_model.{name}" for name in module.model.adapter}
    assert moved == {n for n in before if ".self_attn." in n}


@pytest.mark.parametrize("objective", ["align", "answer"])
def test_loss_falls(model_config, objective):
    rates = {"compressor": 1e-2, "projector": 1e-2, "adapter": 1e-2}
    config = TuningConfig(objective=objective, rates=rates, optim=OptimConfig(steps=20))
    module = InstructionTuning(config, model_config)
    data = batches(1) * 20
    module.log = lambda *a, **k: None
    first = module.training_step(data[0], 0).item()
    del module.log
    fit(module, data, 20)
    module.log = lambda *a, **k: None
    assert module.training_step(data[0], 0).item() < 0.8 * first


def test_checkpointed_activations_give_the_same_gradients(model_config):
    grads = []
    for on in (False, True):
        torch.manual_seed(0)
        module = InstructionTuning(TuningConfig(gradient_checkpointing=on), build_video_lm(model_config))
        module.log = lambda *a, **k: None
        module.configure_model()
        module.training_step(batches(1)[0], 0).backward()
        grads.append([p.grad.clone() for p in module.parameters() if p.requires_grad])
    assert len(grads[0]) == len(grads[1]) > 0
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


def test_resumed_equals_uninterrupted(model_config, tmp_path):
    # The same batch at every step: which batch comes next is the datamodule's business, and is tested there.
    config, data = TuningConfig(optim=OptimConfig(steps=4)), batches(1) * 9
    keep = L.pytorch.callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=2)
    torch.manual_seed(0)
    whole = InstructionTuning(config, model_config)
    fit(whole, data, 4, callbacks=[keep], enable_checkpointing=True)
    torch.manual_seed(7)
    resumed = InstructionTuning(config, model_config)
    assert fit(resumed, data, 4, resume=str(tmp_path / "step=2.ckpt")).global_step == 4
    for (name, a), (_, b) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_checkpoint_rebuilds_the_module(model_config, tmp_path):
    module = InstructionTuning(TuningConfig(optim=OptimConfig(steps=1)), to_plain(model_config))
    fit(module, batches(1), 1).save_checkpoint(tmp_path / "a.ckpt")
    loaded = InstructionTuning.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), loaded.parameters(), strict=True))


def test_users_mistakes():
    for wrong in ({"objective": "dance"}, {"rates": {"lora": 1.0}}, {"align_weight": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TuningConfig(**wrong)


@pytest.mark.slow
def test_ranks_agree_and_sharding_changes_nothing(model_config):
    root = Path(__file__).parents[2]
    results = set()
    for strategy in ("ddp", "fsdp2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.modules.tuning_ranks", model_config.language_model, strategy],
            cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT")]
        assert [len(totals) for totals in lines] == [2], done.stderr
        results.update(round(float(total), 4) for total in lines[0])
    assert len(results) == 1


def test_a_batch_that_stands_in_teaches_nothing(model_config):
    torch.manual_seed(0)
    module = InstructionTuning(TuningConfig(), model_config)
    module.log = lambda *a, **k: None
    batch = batches(1)[0]
    losses, grads = [], []
    for repeats in (0, 2):
        batch.position = Position(0, 2, repeats)
        module.zero_grad(set_to_none=True)
        loss = module.training_step(batch, 0)
        loss.backward()
        losses.append(loss.item())
        grads.append([p.grad for p in module.parameters() if p.requires_grad])
    assert losses[0] > 0 and losses[1] == 0
    # Every parameter gets a gradient, as DDP needs, and it is zero.
    assert len(grads[0]) == len(grads[1]) > 0 and all(g is not None and g.abs().sum() == 0 for g in grads[1])
    assert sum(float(g.abs().sum()) for g in grads[0]) > 0


def test_haystacks_follow_the_seed_of_their_batch_and_teach_selector_and_adapter(model_config):
    selecting = replace(model_config, selector={"name": "late_interaction"}, prompt=PromptConfig(select=3))
    config = TuningConfig(
        haystack=HaystackConfig(frames=400, groups=3), rates={"selector": 1e-2, "adapter": 1e-2}, align_weight=0.0,
        optim=OptimConfig(steps=4),
    )  # fmt: skip
    module = InstructionTuning(config, selecting)
    assert changed(module) == {"selector", "adapter"}
    module.log = lambda *a, **k: None
    (data,) = batches(1)

    def loss(seed):
        torch.manual_seed(seed)
        with torch.no_grad():
            return module.training_step(data, 0).item()

    assert loss(1) == loss(1) and len({loss(s) for s in range(5)}) > 1
    torch.manual_seed(3)
    assert module.validation_step(data, 0) == module.validation_step(data, 0), "validation is never random"


@pytest.mark.parametrize("wrong", [{"objective": "align"}, {"from_words": 2}, {"dialogue": True}])
def test_haystacks_are_for_answers_about_videos_that_are_shown(wrong):
    with pytest.raises(ValueError, match="haystacks are for answers about videos that are shown"):
        TuningConfig(haystack=HaystackConfig(groups=4), **wrong)


def test_tuning_goes_on_from_a_model_that_has_no_selector_yet(model_config, tmp_path):
    first = InstructionTuning(TuningConfig(optim=OptimConfig(steps=2)), model_config)
    fit(first, batches(2), 2)
    save_pretrained(tmp_path / "first", first.model, model_config)
    selecting = replace(model_config, selector={"name": "late_interaction"}, prompt=PromptConfig(select=3))
    went_on = InstructionTuning(TuningConfig(), selecting, model_from=str(tmp_path / "first"))
    before, after = trained_state(first.model), trained_state(went_on.model)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name.split(".")[0] for name in set(after) - set(before)} == {"selector"}


def test_tuning_does_not_go_on_from_a_model_of_other_parts(model_config, tmp_path):
    save_pretrained(tmp_path / "first", build_video_lm(model_config), model_config)
    other = replace(model_config, compressor={"name": "pool", "retention": 1 / 16})
    with pytest.raises(UserError, match="weights do not fit the model, first at 'compressor"):
        InstructionTuning(TuningConfig(), other, model_from=str(tmp_path / "first"))
    compressor = build_video_lm(model_config).compressor
    save_pretrained(tmp_path / "alone", compressor, DTS)
    with pytest.raises(UserError, match="holds a compressor alone; give it as compressor_from"):
        InstructionTuning(TuningConfig(), model_config, model_from=str(tmp_path / "alone"))
