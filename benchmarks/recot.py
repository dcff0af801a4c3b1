"""Masked reconstruction against the copies, and as an initialisation: every setting tried, the losers too.

    python benchmarks/recot.py --train DIR --heldout DIR --needles-train DIR --needles-test DIR

The folders are feature shards (``vxl data encode``): diverse clips of training footage, clips of footage never trained
on, and needle clips of both. Every setting of SETTINGS is trained, and its squared error on hidden cells of
held-out footage is printed over that of each copy, for several ways of hiding. From each, INITIALISATIONS over several
seeds, compressor and projector are then aligned with the words of the needles for equal steps, as the demo does, and
what their tokens name on the second needle clips is counted. To choose settings, let those be of validation footage.
"""

import argparse
import json
from itertools import chain, islice
from typing import Any

import torch
from _record import record
from torch import Tensor, nn

from vxl_lightning import registry
from vxl_lightning.ablation.statistics import sign_flip
from vxl_lightning.data.datamodule import VideoDataModule
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.models.alignment import alignment_loss, events, vocabulary
from vxl_lightning.models.build import VideoLMConfig, build_video_lm
from vxl_lightning.models.read_out import options, read_outs
from vxl_lightning.models.recot import DecoderConfig, ReCoT, reconstruction_loss
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.modules.optim import OptimConfig, build_optimizer
from vxl_lightning.modules.pretraining import squared_errors
from vxl_lightning.tokens import VideoGrid

SALIENCY = {"name": "dts", "reduction": "saliency", "depth": 1}
BASE: dict[str, Any] = {
    "compressor": SALIENCY, "masker": {"name": "tube", "ratio": 0.75, "frames": 4}, "fill": "previous",
    "target": "features", "visible_weight": 0.2, "decoder": {}, "lr": 2e-3, "batch": 4,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "tube .75 of 4 frames": {},
    "semantic .75": {"masker": {"name": "semantic", "ratio": 0.75}},
    "autoencode": {"masker": None},
    "hidden cells blank": {"fill": "embedding"},
    "visible cells count for nothing": {"visible_weight": 0.0},
    "visible cells count alike": {"visible_weight": 1.0},
    "semantic .5": {"masker": {"name": "semantic", "ratio": 0.5}},
    "random .75": {"masker": {"name": "random", "ratio": 0.75}},
    "tube .5 of 4 frames": {"masker": {"name": "tube", "ratio": 0.5, "frames": 4}},
    "tube .9 of 4 frames": {"masker": {"name": "tube", "ratio": 0.9, "frames": 4}},
    "layer-normalised target": {"target": "layer_norm"},
    "two attention pairs": {"compressor": {**SALIENCY, "depth": 2}},
    "convolutions": {"compressor": {"name": "dts"}},
}
EVALUATED = {
    "semantic .5": {"name": "semantic", "ratio": 0.5},
    "semantic .75": {"name": "semantic", "ratio": 0.75},
    "random .5": {"name": "random", "ratio": 0.5},
    "random .75": {"name": "random", "ratio": 0.75},
    "random .9": {"name": "random", "ratio": 0.9},
    "tube .75 of 4 frames": {"name": "tube", "ratio": 0.75, "frames": 4},
}
INITIALISATIONS = ("none", "autoencode", "tube .75 of 4 frames", "semantic .75")


def read(folder: str) -> Tensor:
    """All features of a folder, ``[clips, T, H, W, D]`` bfloat16."""
    reader = ShardReader(folder)
    return torch.stack([reader.features(i)[0] for i in range(len(reader))])


def grid_of(features: Tensor) -> VideoGrid:
    return VideoGrid.of(features.float())


def build(setting: dict[str, Any], dim: int, seed: int) -> ReCoT:
    torch.manual_seed(seed)
    compressor = registry.build("compressor", setting["compressor"], dim=dim)
    return ReCoT(compressor, DecoderConfig(**setting["decoder"]), setting["target"], setting["fill"])


def pretrain(setting: dict[str, Any], clips: Tensor, steps: int, seed: int) -> ReCoT:
    model = build(setting, clips.shape[-1], seed)
    masker = setting["masker"] and registry.build("masker", setting["masker"], dim=clips.shape[-1])
    made = build_optimizer({"model": model}, OptimConfig(steps=steps, lr=setting["lr"]))
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = clips[torch.randint(len(clips), (setting["batch"],), generator=generator)]
        grid = grid_of(batch)
        hidden = masker(grid, generator).hidden if masker else None
        loss = reconstruction_loss(model(grid, hidden), grid, hidden, setting["visible_weight"])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def ratios(model: ReCoT, clips: Tensor) -> dict[str, dict[str, float]]:
    """Squared error on hidden cells over that of each copy, by how cells are hidden."""
    out = {}
    for name, spec in EVALUATED.items():
        masker = registry.build("masker", spec, dim=clips.shape[-1])
        generator = torch.Generator().manual_seed(1)
        total: dict[str, Tensor] = {}
        for chunk in clips.split(8):
            grid = grid_of(chunk)
            hidden = masker(grid, generator).hidden
            for copy, pair in squared_errors(model(grid, hidden), grid, hidden, model.decoder.window).items():
                total[copy] = total.get(copy, torch.zeros(2)) + torch.stack(pair)
        out[name] = {copy: round(float(a / b), 4) for copy, (a, b) in total.items()}
    return out


def start(needles: str) -> VideoLM:
    """The demo's model before any compressor: its projector aligned while all cells are kept."""
    torch.manual_seed(0)
    model = build_video_lm(
        VideoLMConfig.from_plain(
            {
                "dim": ShardReader(needles).manifest.encoding.dim,
                "language_model": "smollm2",
                "compressor": {"name": "none"},
            }
        )
    )
    align(model, needles, 40, 10, 0)
    return model


def align(model: VideoLM, needles: str, steps: int, batch: int, seed: int) -> None:
    """The demo's alignment of compressor and projector, in place; the language model only lends its words."""
    for parameter in model.language_model.parameters():
        parameter.requires_grad_(False)
    parts = {"compressor": model.compressor, "projector": model.projector}
    parts = {name: part for name, part in parts.items() if list(part.parameters())}
    made = build_optimizer(parts, OptimConfig(steps=steps), dict.fromkeys(parts, 2e-3))
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    trained = [p for part in parts.values() for p in part.parameters()]
    data = VideoDataModule(train=needles, batch_size=batch, seed=seed)
    for clips in islice(chain.from_iterable(iter(data.train_dataloader, None)), steps):  # epoch after epoch
        seen = [events(sample) for sample in clips.samples]
        loss = alignment_loss(model, model.project(clips.grid), seen, vocabulary(clips.samples))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def named(model: VideoLM, needles: str) -> list[dict[str, Any]]:
    """What the tokens of every clip name by themselves: a row for each read-out, with its video."""
    data = VideoDataModule(val=needles, batch_size=8)
    reader, rows = data.reader("val"), []
    names = options([reader.sample(i) for i in range(len(reader))])
    for clips in data.val_dataloader():
        found = read_outs(model, model.project(clips.grid), clips.samples, names)
        rows += [{"video": key, **row} for key, some in zip(clips.keys, found, strict=True) for row in some]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "heldout", "needles-train", "needles-test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--compressor", type=json.loads, default=SALIENCY, help="specification, as JSON")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--align-steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="recot", help="results/NAME.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    clips, held = read(args.train), read(args.heldout)
    base = {**BASE, "compressor": args.compressor}
    result: dict[str, Any] = {
        "clips": {"train": len(clips), "heldout": len(held)}, "steps": args.steps, "align_steps": args.align_steps,
        "base": base, "settings": SETTINGS, "reconstruction": [], "readout": [], "tests": [],
    }  # fmt: skip
    model = start(args.needles_train)
    projector = {name: value.clone() for name, value in model.projector.state_dict().items()}
    found: dict[str, list[list[dict[str, Any]]]] = {}
    tried = [(name, seed) for name in INITIALISATIONS for seed in range(args.seeds)]
    tried += [(name, 0) for name in args.settings if name not in INITIALISATIONS]
    for name, seed in tried:
        setting = {**base, **SETTINGS.get(name, {})}
        pretrained = build(setting, clips.shape[-1], seed)
        if name != "none":
            untrained = ratios(pretrained, held) if seed == 0 else None
            pretrained = pretrain(setting, clips, args.steps, seed)
            row = {"setting": name, "seed": seed, "untrained": untrained, "trained": ratios(pretrained, held)}
            result["reconstruction"].append(row)
            print(f"{name} (seed {seed})", row["trained"], flush=True)
        model.compressor = pretrained.compressor
        model.projector.load_state_dict(projector)
        align(model, args.needles_train, args.align_steps, 16, seed)
        rows = named(model, args.needles_test)
        found.setdefault(name, []).append(rows)
        accuracy = {
            task: round(sum(r["prediction"] == r["answer"] for r in of) / len(of), 4)
            for task in sorted({r["task"] for r in rows})
            if (of := [r for r in rows if r["task"] == task])
        }
        result["readout"].append({"initialisation": name, "seed": seed, **accuracy, "n": len(rows)})
        print(f"  named after {args.align_steps} steps from {name} (seed {seed})", accuracy, flush=True)
        result["tests"] = tests(found)
        record(args.name, result)
    print(json.dumps(result["tests"], indent=1))


def tests(found: dict[str, list[list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Each initialisation against none and auto-encoding: two-sided, means over equal seeds, whole videos exchanged."""
    out = []
    for name, of_seeds in found.items():
        for other in INITIALISATIONS[:2]:
            if name in INITIALISATIONS[:2] or len(of_seeds) != len(found.get(other, [])):
                continue
            right = [
                torch.tensor([[r["prediction"] == r["answer"] for r in rows] for rows in found[which]]).double().mean(0)
                for which in (name, other)
            ]
            gain, videos = (right[0] - right[1]).numpy(), [r["video"] for r in of_seeds[0]]
            row = {"a": name, "b": other, "mean_gain": round(float(gain.mean()), 4), "seeds": len(of_seeds)}
            out.append(row | {"p": sign_flip(gain, videos), "n": len(videos), "videos": len(set(videos))})
    return out


if __name__ == "__main__":
    main()
