"""Peak memory of ``vxl data prune`` on a million records about a few hundred videos.

    python benchmarks/million.py [--records 1000000]

Memory is the largest sum of the proportional set sizes of the command and everything it started, sampled each second;
the limit is 2 GiB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from _record import record

from ablation import Memory
from vxl_lightning.data.decoding import write_video
from vxl_lightning.data.manifest import Manifest

VIDEOS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "media").mkdir()
        generator = torch.Generator().manual_seed(0)
        for video in range(VIDEOS):
            small = torch.rand(16, 3, 8, 8, generator=generator) * 255
            frames = torch.nn.functional.interpolate(small, (64, 64), mode="bilinear").byte()
            write_video(root / "media" / f"{video:03d}.mp4", frames, 4)
        with (root / "annotations.json").open("w") as file:
            file.write("[")
            for i in range(args.records):
                question = f"<image>\nIn scene {i} of the film, which of the many things on the table is moved first?"
                answer = (
                    f"It is the thing with the number {i * 7919 % 1_000_003}, which somebody lifts and puts down again."
                )
                turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
                record_ = {"id": f"r{i}", "video": f"{i % VIDEOS:03d}.mp4", "conversations": turns}
                file.write(("," if i else "") + json.dumps(record_))
            file.write("]")
        size = (root / "annotations.json").stat().st_size
        command = [
            sys.executable, "-m", "vxl_lightning.cli.main", "data", "prune", "data_recipes/video_instruct.yaml",
            "datasets=[{json_path: annotations.json}]", f"annotation_root={root}", f"media_root={root / 'media'}",
            f"out={root / 'out'}", "necessity.blind.mode=off", "necessity.misaligned.mode=off", "select.budget=0.5",
            "select.questions_per_video=0",
        ]  # fmt: skip
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=Path(__file__).parent.parent)
        memory = Memory(process.pid)
        memory.start()
        code = process.wait()
        seconds = time.monotonic() - start
        memory.stopped.set()
        memory.join()
        if code:
            raise SystemExit(f"vxl data prune ended with {code}: nothing is recorded")
        made = Manifest.load(root / "out")[0].recipe or {}
    result = {
        "records": args.records, "videos": VIDEOS, "annotation_mib": round(size / 2**20), "wall_s": round(seconds, 1),
        "peak_pss_mib": round(memory.peak / 2**20), "processes_at_peak": memory.processes, "limit_mib": 2048,
        "counts": made["counts"],
    }  # fmt: skip
    print(json.dumps(result))
    print("recorded in", record("million", result))


if __name__ == "__main__":
    main()
