"""The demo's tuning recipe, stage by stage: CPU seconds and answers on held-out footage.

    python benchmarks/tuning.py TRAIN TEST OUT [--variants dts:reduction=saliency,depth=1 pool ...] [--questions N]

TRAIN and TEST are folders of needle features (`vxl data synth`). The warm-up is kept in OUT and used again.
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from _record import record

from vxl_lightning.data.chat import exchanges
from vxl_lightning.data.datamodule import VideoDataModule
from vxl_lightning.models.build import VideoLMConfig, build_video_lm
from vxl_lightning.models.pretrained import load_compressor, load_pretrained, save_pretrained
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.modules.optim import OptimConfig
from vxl_lightning.modules.tuning import InstructionTuning, TuningConfig

RETENTION = 1 / 16


class Losses(L.Callback):
    """Mean answer loss of every ten steps, printed."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.seen.append(float(trainer.callback_metrics["train/loss"]))
        if len(self.seen) % 10 == 0:
            print("step", len(self.seen), "loss", round(sum(self.seen[-10:]) / 10, 3), flush=True)


def stage(model: VideoLM, train: str, config: TuningConfig, batch_size: int, seed: int) -> float:
    """Run one stage in place; CPU seconds of this process."""
    start = time.process_time()
    trainer = L.Trainer(
        accelerator="cpu", max_steps=config.optim.steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0, callbacks=[Losses()],
    )  # fmt: skip
    trainer.fit(InstructionTuning(config, model), datamodule=VideoDataModule(train, batch_size=batch_size, seed=seed))
    return time.process_time() - start


@torch.no_grad()
def evaluate(model: VideoLM, test: str, clips: int) -> tuple[dict[str, Any], float]:
    """Accuracy of every task and CPU seconds."""
    start, right = time.process_time(), defaultdict(list)
    done = 0
    for batch in VideoDataModule(val=test, batch_size=8).val_dataloader():
        if done >= clips:
            break
        done += len(batch)
        pairs = [exchanges(s) for s in batch.samples]
        choices = [s.meta["choices"] for s in batch.samples]
        scores = model.answers(batch.grid, [[p.question for p in clip] for clip in pairs], choices)
        for sample, clip, asked, found in zip(batch.samples, pairs, choices, scores, strict=True):
            for task, pair, options, score in zip(sample.meta["task"], clip, asked, found, strict=True):
                right[task].append(options[int(score.argmax())] == pair.answer)
    table = {task: [round(sum(hits) / len(hits), 3), len(hits)] for task, hits in sorted(right.items())}
    return table, time.process_time() - start


def parse(text: str) -> dict[str, Any]:
    """``dts:reduction=saliency,depth=1`` to a specification."""
    name, _, rest = text.partition(":")
    spec: dict[str, Any] = {"name": name, "retention": 1.0 if name == "none" else RETENTION}
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        spec[key] = int(value) if value.isdigit() else value
    return spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--variants", nargs="*", default=["dts:reduction=saliency,depth=1", "dts", "pool", "random", "uniform"]
    )
    parser.add_argument(
        "--compressor-from", default="", help="folder of a pretrained compressor for trainable variants"
    )
    parser.add_argument("--language-model", default="smollm2")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words", type=int, default=2, help="tokens a group the warm-up reads")
    parser.add_argument("--warm-align", type=int, default=40)
    parser.add_argument("--warm-answer", type=int, default=90)
    parser.add_argument("--align", type=int, default=60)
    parser.add_argument("--answer", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    L.seed_everything(args.seed, verbose=False)
    encoding = VideoDataModule(args.train).reader("train").manifest.encoding
    assert encoding is not None
    results: dict[str, Any] = {"settings": {k: str(v) for k, v in vars(args).items()}}

    def show(name: str, value: Any) -> None:
        results[name] = value
        print(name, json.dumps(value), flush=True)

    warm = args.out / "warm"
    if not (warm / "config.json").is_file():
        config = VideoLMConfig(
            dim=encoding.dim, language_model=args.language_model, compressor={"name": "none", "retention": 1.0}
        )
        model = build_video_lm(config)
        aligning = TuningConfig(objective="align", rates={"projector": 2e-3}, optim=OptimConfig(steps=args.warm_align))
        show("warm align s", stage(model, args.train, aligning, 10, args.seed))
        answering = TuningConfig(
            from_words=args.words, align_weight=0.0, rates={"adapter": 3e-3}, optim=OptimConfig(steps=args.warm_answer)
        )
        show("warm answer s", stage(model, args.train, answering, 8, args.seed))
        save_pretrained(warm, model, config)
    for text in args.variants:
        loaded = load_pretrained(warm, compressor=parse(text))
        model = loaded.model
        assert isinstance(model, VideoLM)
        if args.compressor_from and model.compressor.trainable:
            load_compressor(args.compressor_from, model.compressor)
        rates = {"compressor": 2e-3, "projector": 5e-4}
        row: dict[str, Any] = {}
        if args.align:
            aligning = TuningConfig(objective="align", rates=rates, optim=OptimConfig(steps=args.align))
            row["align s"] = stage(model, args.train, aligning, 16, args.seed)
        if args.answer:
            rates = {"compressor": 1e-3, "projector": 2e-4, "adapter": 1e-3}
            joint = TuningConfig(objective="answer", rates=rates, optim=OptimConfig(steps=args.answer))
            row["answer s"] = stage(model, args.train, joint, 4, args.seed)
        row["accuracy"], row["evaluate s"] = evaluate(model, args.test, args.clips)
        show(text, row)
    record("tuning", results)


if __name__ == "__main__":
    main()
