"""A recipe killed (kill -9) at random moments, each followed by the same command, until it is done; again and again.

    python benchmarks/killed.py runs/corpus --kills 30

Whenever it is done, `dataset.json`, every table and every tar must equal those of a run that nobody disturbed; after
every kill the folder must not be readable as a dataset, unless it is complete.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from _corpus import arguments, command, digests, planted
from _record import record

from vxl_lightning.data.shards import ShardReader
from vxl_lightning.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    corpus = planted(args.corpus)
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        run = command(arguments(corpus, "video_instruct", out, "output.shard_bytes=300000"))
        start = time.monotonic()
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        whole = time.monotonic() - start
        wanted = digests(out)
        print(f"undisturbed: {whole:.1f} s, {sum(name.endswith('.tar') for name in wanted)} shards", flush=True)
        kills, finished, moments = 0, 0, []
        clean(out)
        while kills < args.kills:
            process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                # Short waits reach the early stages, long ones the late: some runs are done before they are killed.
                patience = chance.uniform(0.3, whole)
                process.wait(patience)
                assert process.returncode == 0, "a run that was not killed failed"
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                moments.append({"after_s": round(patience, 2), "finished_stages": stages(out)})
                print(f"kill {kills} after {patience:.1f} s, stages there: {', '.join(stages(out))}", flush=True)
                if not unreadable(out):
                    assert digests(out) == wanted, "what can be read must be whole"
            if (out / "dataset.json").exists():
                assert digests(out) == wanted, "a killed run left other bytes"
                finished += 1
                clean(out)
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert digests(out) == wanted
        finished += 1
    print(f"{kills} kills, {finished} finished runs, all equal to the undisturbed one")
    print("recorded in", record("killed", {"kills": kills, "equal": finished, "whole_s": whole, "moments": moments}))


def clean(out: Path) -> None:
    for path in (out, out.with_name(out.name + ".work")):
        shutil.rmtree(path, ignore_errors=True)


def stages(out: Path) -> list[str]:
    """Stages whose table is there, and the number of shards."""
    work = out.with_name(out.name + ".work")
    names = {p.name.rsplit("-", 1)[0] for p in work.glob("*.parquet") if "to-" not in p.name and "new" not in p.name}
    shards = len(list(out.glob("shard-*.tar"))) if out.exists() else 0
    return [*sorted(names), *([f"{shards} shards"] if shards else [])]


def unreadable(out: Path) -> bool:
    try:
        ShardReader(out)
    except UserError as error:
        assert "not a dataset" in str(error), error
        return True
    return False


if __name__ == "__main__":
    main()
