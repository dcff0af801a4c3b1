"""Three steps of tuning on two processes; run by test_tuning.py with a language model's folder and a strategy."""

import sys
import warnings

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from tests import tiny_lm

from vxl_lightning.data.batch import ClipBatch
from vxl_lightning.models.build import AdapterConfig, VideoLMConfig
from vxl_lightning.modules.optim import OptimConfig
from vxl_lightning.modules.tuning import InstructionTuning, TuningConfig
from vxl_lightning.tokens import VideoGrid

STRATEGIES = {
    "ddp": lambda: DDPStrategy(process_group_backend="gloo"),
    "fsdp2": lambda: ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, process_group_backend="gloo"),
}


def batches(count):
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        features = torch.randn(2, 8, 4, 4, tiny_lm.DIM, generator=generator)
        samples = [tiny_lm.sample(2 * i), tiny_lm.sample(2 * i + 1, 5.0, "blue", "star")]
        yield ClipBatch(VideoGrid.of(features), samples, [s.id for s in samples])


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    compressor = {"name": "dts", "retention": 1 / 16, "reduction": "saliency", "depth": 1}
    config = VideoLMConfig(
        dim=tiny_lm.DIM, language_model=sys.argv[1], compressor=compressor, adapter=AdapterConfig(rank=2)
    )
    torch.manual_seed(0)
    module = InstructionTuning(TuningConfig(optim=OptimConfig(steps=3)), config)
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy=STRATEGIES[sys.argv[2]](), max_steps=3, logger=False,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(list(batches(6)), batch_size=None))
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in module.parameters()]
    total = torch.stack([p.detach().double().abs().sum() for p in whole]).sum()
    totals = [torch.zeros_like(total) for _ in range(trainer.world_size)]
    torch.distributed.all_gather(totals, total)
    if trainer.is_global_zero:  # the launcher may end the other rank before it has printed
        print("RESULT", *(t.item() for t in totals), flush=True)
