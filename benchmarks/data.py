"""What the data pipeline costs beside the bare work: copying, decoding, and comparing all with all.

    python benchmarks/data.py                   # everything, writes results/data_PART.json
    python benchmarks/data.py --quick           # small sizes, writes nothing
    python benchmarks/data.py --only shards     # or frames, loading, duplicates

Each ratio is the bare time over the project's, taken in turn in one run, the median over the repeats: 1 is as fast.
``least_ratio`` is that of the smallest times, because noise only adds.
Growth is the exponent of the time from one to eight times the input, fitted over the sizes between.

- shards: `write_shard` of some 260 MiB of videos each, against copying the same into plain files, each flushed; also
  by two processes, as a recipe does on two cores, against the same single copy. A shard is hashed while it is written,
  so with one writer a second core must be free, and a disk faster than SHA-256 waits for the hash (``hash_s``). Each
  file is removed once it is flushed: memory that a virtual machine gives back to its host is dear to take again.
- frames: `curation.frames.look`, against torchcodec decoding the same frames at the same size.
- loading: `ClipDataset` over shards, against torchcodec decoding the same files, opened by path.
  Both decode on one thread, as the processes of a recipe and of a loader do.
- duplicates: `similar_pairs` of 384 numbers each, against faiss' exact range search; each in its own process.

The footage is that of `make demo`; ``--folder`` says where shards and copies are written.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import measure, own_peak_mib, record

DIM, THRESHOLD = 384, 0.95
SCALES = (1, 2, 4, 8)


def interleaved(
    ours: Callable[[], Any], bare: Callable[[], Any], repeats: int, before: Callable[[], Any] = bool, parts: int = 1
) -> dict[str, Any]:
    """Both in turn, ``parts`` times each after ``before``: seconds of each, and how fast ours is beside bare work."""
    wall: dict[str, list[float]] = {"ours": [], "bare": []}
    cpu: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(repeats):
        sides = [("ours", ours), ("bare", bare)]
        for name, side in sides if turn % 2 else reversed(sides):  # neither always finds the disk as the other left it
            spent = [0.0, 0.0]
            for _ in range(parts):
                before()
                start = time.perf_counter(), time.process_time()
                side()
                spent[0] += time.perf_counter() - start[0]
                spent[1] += time.process_time() - start[1]
            wall[name].append(round(spent[0], 4))
            cpu[name].append(round(spent[1], 4))

    def ratio(seconds: dict[str, list[float]]) -> float:
        return round(statistics.median(b / o for o, b in zip(seconds["ours"], seconds["bare"], strict=True)), 3)

    least = round(min(wall["bare"]) / min(wall["ours"]), 3)
    return {"ratio": ratio(wall), "least_ratio": least, "cpu_ratio": ratio(cpu), "wall_s": wall, "cpu_s": cpu}


def growth(rows: list[dict[str, Any]], size: str, clock: str = "wall_s") -> float | None:
    """Exponent of our time over the size; the smallest time of each, because noise only adds."""
    if len(rows) < 2:
        return None
    sizes, seconds = [row[size] for row in rows], [min(row[clock]["ours"]) for row in rows]
    return round(float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]), 2)


def films() -> list[Path]:
    from vxl_lightning.data.synth.footage import SOURCES, locate

    names = ("bikes", "portrait", "webcam", "caminandes", "bigbuckbunny", "carphone")
    return [locate(source) for source in SOURCES if source.name in names]


def shards(folder: Path, quick: bool) -> list[dict[str, Any]]:
    from vxl_lightning.data.files import sha256_of
    from vxl_lightning.data.schema import Sample, Turn
    from vxl_lightning.data.tars import PackedEntry, write_shard
    from vxl_lightning.parallel import processes

    turns = (Turn("human", "<image>\nWhat is shown?"), Turn("gpt", "A film."))
    files = list(islice(cycle(films()), 40 if quick else 400))
    entries = [
        PackedEntry(f"{i:05d}", [Sample(f"{i:05d}", f"{i:05d}.mp4", turns, {})], {"mp4": file})
        for i, file in enumerate(files)
    ]
    rows = []
    pool = processes(2, 1)
    list(pool.map(bool, range(8)))  # both are there before anything is timed

    def copy() -> None:
        with (folder / "copy").open("wb") as out:
            for file in files:
                with file.open("rb") as handle:
                    shutil.copyfileobj(handle, out, 4 << 20)
            out.flush()
            os.fsync(out.fileno())

    def write() -> None:
        write_shard(folder / "shard-000000.tar", entries)

    def write_two() -> None:
        list(pool.map(write_shard, [folder / f"shard-{number:06d}.tar" for number in range(2)], [entries] * 2))

    def clear() -> None:
        for file in folder.iterdir():
            file.unlink()
        os.sync()

    for scale in SCALES[: 2 if quick else None]:

        def hashed(scale: int = scale) -> float:
            start = time.perf_counter()
            for file in files * scale:
                sha256_of(file)
            return round(time.perf_counter() - start, 4)

        repeats = 3 if quick else 5
        row = interleaved(write, copy, repeats, clear, scale) | {"hash_s": hashed()}
        if scale > 1:
            two = interleaved(write_two, lambda: [copy(), copy()], repeats, clear, scale // 2)
            row["two_writers"] = {name: two[name] for name in ("ratio", "least_ratio")}
        rows.append({"shards": scale, "mib": round(scale * sum(f.stat().st_size for f in files) / 2**20, 1), **row})
    return rows


def bare_frames(path: Path, times: list[float] | None, size: tuple[int, int], fps: float = 0, most: int = 0) -> Any:
    """The frames at ``times``, or at ``fps``, by torchcodec alone."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="exact", transforms=[Resize(size)])
    begin, end = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds
    if times is None:
        times = [i / fps for i in range(most) if i / fps < end - begin]
    return decoder.get_frames_played_at([min(begin + t + 1e-6, end - 2e-6) for t in times]).data


def frames(folder: Path, quick: bool) -> list[dict[str, Any]]:
    from vxl_lightning.curation.frames import SIDE, look, schedule
    from vxl_lightning.curation.recipe import FrameSettings
    from vxl_lightning.data.decoding import probe

    torch.set_num_threads(1)
    settings = FrameSettings()
    durations = {path: probe(path).duration for path in films()}
    rows = []
    for scale in SCALES[: 2 if quick else None]:
        files = list(islice(cycle(films()), 3 * scale))
        times = [schedule(None, durations[f], settings)[1] for f in files]

        def ours(files: list[Path] = files) -> None:
            for file in files:
                assert look(file, "video", None, durations[file], settings)["problem"] is None

        def bare(files: list[Path] = files, times: list[list[float]] = times) -> None:
            for file, at in zip(files, times, strict=True):
                bare_frames(file, at, (SIDE, SIDE))

        rows.append(
            {"videos": len(files), "frames": sum(map(len, times)), **interleaved(ours, bare, 3 if quick else 5)}
        )
    return rows


def loading(folder: Path, quick: bool) -> list[dict[str, Any]]:
    from vxl_lightning.data.loader import ClipDataset
    from vxl_lightning.data.schema import Sample, Turn
    from vxl_lightning.data.shards import ShardReader
    from vxl_lightning.data.writer import ShardWriter

    torch.set_num_threads(1)
    turns = (Turn("human", "<image>\nWhat is shown?"), Turn("gpt", "A film."))
    fps, most, size = 2.0, 64, (224, 224)
    rows = []
    for scale in SCALES[: 2 if quick else None]:
        files = list(islice(cycle(films()), 3 * scale))
        root = folder / f"loading-{scale}"
        with ShardWriter(root, "video") as writer:
            for i, file in enumerate(files):
                writer.add_video([Sample(f"{i:05d}", f"{i:05d}.mp4", turns, {})], file)
        clips = ClipDataset(ShardReader(root), fps, most, size)

        def ours(clips: ClipDataset = clips) -> int:
            return sum(len(clips[i].video) for i in range(len(clips)))

        def bare(files: list[Path] = files) -> int:
            return sum(len(bare_frames(file, None, size, fps, most)) for file in files)

        loaded = ours()
        assert loaded == bare()
        rows.append({"videos": len(files), "frames": loaded, **interleaved(ours, bare, 3 if quick else 5)})
    return rows


def embeddings(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Unit vectors in clusters of some 200, one in twenty a copy of another with noise that spans the threshold."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((count // 200, DIM), np.float32)
    vectors = centres[draw.integers(0, len(centres), count)]
    vectors += 0.8 * draw.standard_normal((count, DIM), np.float32)
    copies = draw.choice(count, count // 20, replace=False)
    noise = draw.uniform(0.02, 0.6, (len(copies), 1)).astype(np.float32)
    vectors[copies] = vectors[draw.integers(0, count, len(copies))]
    vectors[copies] += noise * draw.standard_normal((len(copies), DIM), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def pairs(method: str, path: Path) -> dict[str, Any]:
    """One search in this process: its time and memory; the pairs go to a file beside the vectors."""
    import faiss

    from vxl_lightning.curation.similar import similar_pairs

    vectors = np.load(path)
    loaded = own_peak_mib()
    start = time.perf_counter(), time.process_time()
    if method == "ours":
        left, right, _ = similar_pairs(vectors, THRESHOLD, seed=0)
    else:
        index = faiss.IndexFlatIP(DIM)
        index.add(vectors)
        limits, _, found = index.range_search(vectors, THRESHOLD)
        query = np.repeat(np.arange(len(vectors)), np.diff(limits.astype(np.int64)))
        left, right = query[query < found], found[query < found]
    took = time.perf_counter() - start[0], time.process_time() - start[1]
    np.save(path.with_name(f"{method}.npy"), np.unique(left * np.int64(len(vectors)) + right))
    return {"wall_s": took[0], "cpu_s": took[1], "loaded_mib": loaded, "peak_mib": own_peak_mib(), "pairs": len(left)}


def duplicates(folder: Path, quick: bool) -> list[dict[str, Any]]:
    rows = []
    for scale in SCALES[: 2 if quick else None]:
        count = (5_000 if quick else 25_000) * scale
        path = folder / "vectors.npy"
        measure(__file__, "--embed", str(count), str(path))
        # Exact search of the larger ones is minutes long, which evens out what else the machine does.
        repeats = 3 if count <= 25_000 else 1
        done: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
        for _ in range(repeats):
            for method in done:
                done[method].append(measure(__file__, "--pairs", method, str(path)))
        ours, exact = (np.load(folder / f"{method}.npy") for method in done)
        row: dict[str, Any] = {"vectors": count, "pairs": len(exact)}
        row["recall"] = round(len(np.intersect1d(ours, exact)) / len(exact), 6)
        row["surplus"] = len(np.setdiff1d(ours, exact))
        for clock in ("wall_s", "cpu_s"):
            row[clock] = {method: [round(run[clock], 3) for run in runs] for method, runs in done.items()}
            middle = {method: statistics.median(seconds) for method, seconds in row[clock].items()}
            row["ratio" if clock == "wall_s" else "cpu_ratio"] = round(middle["bare"] / middle["ours"], 2)
        for memory in ("loaded_mib", "peak_mib"):
            row[memory] = {method: round(max(run[memory] for run in runs), 1) for method, runs in done.items()}
        rows.append(row)
    return rows


PARTS: dict[str, tuple[Callable[[Path, bool], list[dict[str, Any]]], str]] = {
    "shards": (shards, "mib"), "frames": (frames, "videos"), "loading": (loading, "videos"),
    "duplicates": (duplicates, "vectors"),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    parser.add_argument("--embed", nargs=2, metavar=("COUNT", "VECTORS"), help="draw vectors for the search")
    parser.add_argument("--pairs", nargs=2, metavar=("METHOD", "VECTORS"), help="one search in this process")
    args = parser.parse_args()
    if args.embed:
        np.save(args.embed[1], embeddings(int(args.embed[0])))
        print("{}")
        return
    if args.pairs:
        print(json.dumps(pairs(args.pairs[0], Path(args.pairs[1]))))
        return
    for name, (part, size) in PARTS.items():
        if args.only in (None, name):
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                rows = part(Path(folder), args.quick)
            exponents = {clock: growth(rows, size, clock) for clock in ("wall_s", "cpu_s")}
            for row in rows:
                shown = {k: v for k, v in row.items() if k not in ("wall_s", "cpu_s")}
                print(name, json.dumps(shown), flush=True)
            print(name, "growth", json.dumps(exponents), flush=True)
            if not args.quick:
                print("recorded in", record(f"data_{name}", {"growth": exponents, "runs": rows}))


if __name__ == "__main__":
    main()
