"""Masked reconstruction against the copies, and as an initialisation: every setting tried, the losers too.

    python benchmarks/recot.py --train DIR --heldout DIR --needles-train DIR --needles-test DIR

The folders are feature shards (``vxl data encode``): diverse clips of training footage, clips of footage never trained
on, and the needle clips of both. Every setting of SETTINGS is trained, and its squared error on hidden cells of
held-out footage is printed over that of each copy, for several ways of hiding. From each of INITIALISATIONS,
over seeds, a linear read-out of needle colour and shape is then trained together with the compressor for equal steps.
"""

import argparse
import json
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from vxl_lightning import registry
from vxl_lightning.ablation.statistics import sign_flip
from vxl_lightning.compressors.base import Compressor
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.data.synth.shapes import COLOURS, SHAPES
from vxl_lightning.models.recot import DecoderConfig, ReCoT, reconstruction_loss
from vxl_lightning.modules.optim import OptimConfig, build_optimizer
from vxl_lightning.modules.pretraining import squared_errors
from vxl_lightning.tokens import VideoGrid

SALIENCY = {"name": "dts", "reduction": "saliency", "depth": 1}
BASE: dict[str, Any] = {
    "compressor": SALIENCY, "masker": {"name": "semantic", "ratio": 0.75}, "fill": "previous", "target": "features",
    "visible_weight": 0.2, "decoder": {}, "lr": 2e-3, "batch": 4,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "semantic .75": {},
    "autoencode": {"masker": None},
    "semantic .75, hidden cells blank": {"fill": "embedding"},
    "semantic .5, hidden cells blank": {"fill": "embedding", "masker": {"name": "semantic", "ratio": 0.5}},
    "semantic .9": {"masker": {"name": "semantic", "ratio": 0.9}},
    "random .75": {"masker": {"name": "random", "ratio": 0.75}},
    "random .9": {"masker": {"name": "random", "ratio": 0.9}},
    "tube .75 of 4 frames": {"masker": {"name": "tube", "ratio": 0.75, "frames": 4}},
    "layer-normalised target": {"target": "layer_norm"},
    "decoder reads its own group alone": {"decoder": {"reach": 0}},
    "learning rate 5e-4": {"lr": 5e-4},
    "two attention pairs": {"compressor": {**SALIENCY, "depth": 2}},
    "no attention": {"compressor": {**SALIENCY, "depth": 0}},
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
INITIALISATIONS = ("none", "autoencode", "semantic .75", "tube .75 of 4 frames")


def read(folder: str) -> tuple[Tensor, list[dict[str, Any]]]:
    """All features of a folder, ``[clips, T, H, W, D]`` bfloat16, and the records' extra keys."""
    reader = ShardReader(folder)
    features = torch.stack([reader.features(i)[0] for i in range(len(reader))])
    return features, [dict(reader.sample(i).meta) for i in range(len(reader))]


def grid_of(features: Tensor) -> VideoGrid:
    return VideoGrid.of(features.float())


def build(setting: dict[str, Any], dim: int, seed: int) -> ReCoT:
    torch.manual_seed(seed)
    compressor = registry.build("compressor", setting["compressor"], dim=dim)
    return ReCoT(compressor, DecoderConfig(**setting["decoder"]), setting["target"], setting["fill"])


def pretrain(setting: dict[str, Any], clips: Tensor, steps: int, seed: int) -> tuple[ReCoT, float]:
    """A trained model and the seconds of CPU it took."""
    model = build(setting, clips.shape[-1], seed)
    masker = setting["masker"] and registry.build("masker", setting["masker"], dim=clips.shape[-1])
    made = build_optimizer({"model": model}, OptimConfig(steps=steps, lr=setting["lr"]))
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    generator = torch.Generator().manual_seed(seed)
    start = time.process_time()
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
    return model, time.process_time() - start


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


def needle_labels(records: list[dict[str, Any]], groups: int, size: int = 4) -> Tensor:
    """``[clips, groups, colours + shapes]``: what is drawn on the frames of each group."""
    names = [*COLOURS, *SHAPES]
    labels = torch.zeros(len(records), groups, len(names))
    for row, record in zip(labels, records, strict=True):
        for needle in record["needles"]:
            for word in (needle["colour"], needle["shape"]):
                row[needle["frame"] // size, names.index(word)] = 1
    return labels


def read_out(
    compressor: Compressor, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], steps: int, seed: int
) -> dict[str, Tensor]:
    """Train a linear read-out with the compressor; right or wrong for every test group with exactly one needle."""
    torch.manual_seed(1000 + seed)
    clips, labels = train
    head = nn.Sequential(nn.LayerNorm(compressor.out_dim), nn.Linear(compressor.out_dim, labels.shape[-1]))
    nn.init.constant_(head[1].bias, -4.0)  # needles are rare
    made = build_optimizer({"compressor": compressor, "head": head}, OptimConfig(steps=steps, lr=2e-3))
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    generator = torch.Generator().manual_seed(seed)

    def logits(features: Tensor) -> Tensor:
        out = head(compressor(grid_of(features)).features)
        return out.view(len(features), labels.shape[1], -1, labels.shape[2]).logsumexp(2)

    for _ in range(steps):
        index = torch.randint(len(clips), (8,), generator=generator)
        loss = nn.functional.binary_cross_entropy_with_logits(logits(clips[index]), labels[index])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*compressor.parameters(), *head.parameters()], 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        scores = torch.cat([logits(c) for c in test[0].split(8)])
    one, n = test[1].sum(-1) == 2, len(COLOURS)
    return {
        task: (scores[..., part].argmax(-1) == test[1][..., part].argmax(-1))[one].float()
        for task, part in (("colour", slice(n)), ("shape", slice(n, None)))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "heldout", "needles-train", "needles-test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--compressor", type=json.loads, default=SALIENCY, help="specification, as JSON")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--readout-steps", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--heldout-clips", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, help="folder for the trained models, as safetensors")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "recot.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    clips, _ = read(args.train)
    held, _ = read(args.heldout)
    held = held[torch.linspace(0, len(held) - 1, min(args.heldout_clips, len(held))).long()]
    needles = [read(args.needles_train), read(args.needles_test)]
    train, test = ((x, needle_labels(r, x.shape[1] // 4)) for x, r in needles)
    videos = [str(i) for i in (test[1].sum(-1) == 2).nonzero()[:, 0].tolist()]
    right: dict[str, list[Tensor]] = {}
    base = {**BASE, "compressor": args.compressor}
    result: dict[str, Any] = {
        "what": __doc__, "date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(),
        "device": f"{platform.processor() or platform.machine()} CPU, {args.threads} thread(s)",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "clips": {"train": len(clips), "heldout": len(held), "needles": [len(train[0]), len(test[0])]},
        "steps": args.steps, "readout_steps": args.readout_steps, "base": base, "reconstruction": [], "readout": [],
    }  # fmt: skip

    def save() -> None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")

    first = [(name, seed) for seed in range(args.seeds) for name in INITIALISATIONS]
    for name, seed in first + [(name, 0) for name in args.settings if name not in INITIALISATIONS]:
        setting = {**base, **SETTINGS.get(name, {})}
        model = build(setting, clips.shape[-1], seed)
        if name != "none":
            untrained = ratios(model, held) if seed == 0 else None
            model, seconds = pretrain(setting, clips, args.steps, seed)
            row = {"setting": name, "seed": seed, **setting, "cpu_s": round(seconds, 1), "untrained": untrained}
            result["reconstruction"].append({**row, "trained": ratios(model, held)})
            print(f"{name} (seed {seed}, {seconds:.0f} s)", result["reconstruction"][-1]["trained"], flush=True)
            if args.checkpoints:
                args.checkpoints.mkdir(parents=True, exist_ok=True)
                save_model(model, str(args.checkpoints / f"{name.replace(' ', '_')}-{seed}.safetensors"))
        if name in INITIALISATIONS:
            found = read_out(model.compressor, train, test, args.readout_steps, seed)
            right.setdefault(name, []).append(torch.stack(list(found.values())).mean(0))
            accuracy = {task: round(float(r.mean()), 4) for task, r in found.items()}
            result["readout"].append({"initialisation": name, "seed": seed, **accuracy, "n": len(videos)})
            print(f"  read-out from {name} (seed {seed})", accuracy, flush=True)
        save()
    result["tests"] = tests(right, videos)
    print(json.dumps(result["tests"], indent=1))
    save()


def tests(right: dict[str, list[Tensor]], videos: list[str]) -> list[dict[str, Any]]:
    """Each masked initialisation against the others: two-sided, paired by needle, whole videos exchanged."""
    out = []
    for name in INITIALISATIONS[2:]:
        for other in INITIALISATIONS[:2]:
            gain = (torch.stack(right[name]) - torch.stack(right[other])).mean(0).numpy().astype("float64")
            row = {"a": name, "b": other, "mean_gain": round(float(gain.mean()), 4), "seeds": len(right[name])}
            out.append(row | {"p": sign_flip(gain, videos), "n": len(videos), "videos": len(set(videos))})
    return out


def commit() -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
