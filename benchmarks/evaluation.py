"""The share of the time of `vxl eval` that is spent inside the model, over 1,000 questions (limit: 0.9), and the rest.

    python benchmarks/evaluation.py                  # the demo's model, 1,000 questions; writes results/evaluation.json
    python benchmarks/evaluation.py --questions 60 --model FOLDER                                      # writes nothing

A made-up benchmark in the published layout of Video-MME, three questions a video as there: drifting scenes of 32 s, in
320 x 240 and 12 frames a second, of which one frame a second is looked at. "Cached" means that videos, annotations and
weights lie on this machine and that a video is decoded and encoded once, and at hand for its other questions; nothing
is kept from an earlier run, so decoding and encoding every video is part of what is timed.

What is timed is the command as a process of its own, from its start to its end: imports, loading the model, reading the
benchmark, looking for missing files, decoding, asking, keeping replies, tables, report and manifest. Inside the model
are encoder, compressor with projector, selector with the layout of the prompt, and language model, as the replies tell
it; decoding is not. One row is asked: rows share what they look at, and each would tell it in full.

Then the same command again, which finds every reply stored and asks nothing: the seconds until the tables are there.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
import torch.nn.functional as F
from _record import record

from vxl_lightning.data.decoding import write_stream

LIMIT, QUESTIONS, PER_VIDEO = 0.9, 1000, 3
DEMO = "runs/demo/ablation/models/dts-+-recot-0.0625-seed-0"
SECONDS, SCENE, FPS, HEIGHT, WIDTH = 32, 8, 12, 240, 320
OPTIONS = [
    "A. It is brighter than before.",
    "B. It is darker than before.",
    "C. It has other colours.",
    "D. It looks as it did before.",
]


def drifting(seed: int) -> Iterator[torch.Tensor]:
    """Frames ``[3, HEIGHT, WIDTH]`` uint8 of a scene that drifts, and of another after every ``SCENE`` seconds."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(SECONDS // SCENE):
        coarse = torch.rand(1, 3, 24, 32, generator=draw) * 255
        scene = F.interpolate(coarse, (2 * HEIGHT, 2 * WIDTH), mode="bilinear")[0].to(torch.uint8)
        for t in range(SCENE * FPS):
            yield scene[:, t : t + HEIGHT, t : t + WIDTH]


def make(folder: Path, questions: int) -> int:
    """Write the benchmark; returns how many videos it has."""
    videos = -(-questions // PER_VIDEO)
    (folder / "videomme").mkdir(parents=True)
    (folder / "data").mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda v: write_stream(folder / "data" / f"made_{v}.mp4", drifting(v), FPS), range(videos)))
    rows = [
        {
            "video_id": f"{v + 1:03d}",
            "duration": "short",
            "domain": f"domain {v % 6}",
            "sub_category": f"category {v % 30}",
            "url": "",
            "videoID": f"made_{v}",
            "question_id": f"{v + 1:03d}-{i + 1}",
            "task_type": f"task {(v + i) % 12}",
            "question": f"How does the picture look after change number {i + 1}, held against what was shown before?",
            "options": OPTIONS,
            "answer": "ABCD"[(v + i) % 4],
        }
        for v, i in (divmod(n, PER_VIDEO) for n in range(questions))
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "videomme" / "test-00000-of-00001.parquet")
    return videos


def run(command: list[str], says: str) -> dict[str, float]:
    """Wall and CPU seconds of a whole command, which must say what is expected of it."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or says not in done.stdout:
        sys.exit(f"{done.stdout}\nvxl eval did not say: {says}")
    return {"wall_s": wall, "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def steps(replies: Path) -> dict[str, float]:
    """Seconds of every step of answering, over all replies that are stored."""
    spent: Counter[str] = Counter()
    for file in replies.glob("*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            spent.update(json.loads(line)["content"]["milliseconds"])
    return {step: milliseconds / 1e3 for step, milliseconds in spent.items()}


def measure(model: str, questions: int, answering: str) -> dict[str, Any]:
    """The command twice, over a benchmark that is made for it."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        videos = make(root / "data" / "video_mme", questions)
        print(f"{questions:,} questions about {videos:,} videos are made; asking", flush=True)
        (root / "eval.yaml").write_text("benchmarks: [video_mme]\n")
        settings = [f"model={model}", f"out={root / 'out'}", f"answering={answering}", f"data_root={root / 'data'}"]
        command = [sys.executable, "-m", "vxl_lightning.cli.main", "eval", str(root / "eval.yaml"), *settings]
        asked = run(command, f"{questions:,} replies asked, 0 known before")
        spent = steps(root / "out" / "cache" / "replies")
        stored = run(command, f"0 replies asked, {questions:,} known before")
    inside = sum(seconds for step, seconds in spent.items() if step != "decode")
    return {
        "questions": questions,
        "videos": videos,
        "video": {"seconds": SECONDS, "fps": FPS, "height": HEIGHT, "width": WIDTH},
        "model": Path(model).name,
        "answering": answering,
        "asked": asked,
        "steps_s": spent,
        "elsewhere_s": asked["wall_s"] - inside - spent["decode"],
        "inside_share": inside / asked["wall_s"],
        "limit": LIMIT,
        "stored": stored,
    }


def show(found: dict[str, Any]) -> None:
    wall = found["asked"]["wall_s"]
    rows = [*found["steps_s"].items(), ("all else", found["elsewhere_s"]), ("the command", wall)]
    print(f"{'':12} {'s':>9} {'share':>7} {'ms a question':>14}")
    for name, seconds in rows:
        print(f"{name:12} {seconds:9.1f} {seconds / wall:7.1%} {1e3 * seconds / found['questions']:14.1f}")
    verdict = "kept" if found["inside_share"] >= LIMIT else "missed"
    print(f"inside the model: {found['inside_share']:.3f} of the time; the limit of {LIMIT} is {verdict}")
    print(f"all replies stored: {found['stored']['wall_s']:.1f} s, {found['stored']['cpu_s']:.1f} s of CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEMO, help="folder of a tuned model (%(default)s)")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--answering", default="generate", choices=["generate", "likelihood"])
    args = parser.parse_args()
    if not Path(args.model).is_dir():
        parser.error(f"--model={args.model} is not a folder; run make demo, or give the folder of a tuned model")
    found = measure(args.model, args.questions, args.answering)
    show(found)
    if args.questions == QUESTIONS:
        name = "evaluation" if args.answering == "generate" else f"evaluation_{args.answering}"
        print("recorded in", record(name, found))


if __name__ == "__main__":
    main()
