"""Memory and time of a stream of 100,000 frames, asked about again and again.

    python benchmarks/streaming.py                # writes results/streaming.json
    python benchmarks/streaming.py --frames 4000  # writes nothing

Frames of 128 px drift and cut at random; EfficientNet-lite0 encodes them, ``streaming_tom`` keeps one token in four,
a random Llama of four layers reads them through ``quantized`` with a store, and a question is asked every few thousand
frames. Memory is the process's resident set, beside what the stream itself holds; flat is the largest after the store
has filled over the mean of the first tenth after that. Time is a frame's, in the same stretches.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from _record import record

BATCH, FPS, SIDE = 64, 2.0, 128


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def frames(total: int) -> Iterator[torch.Tensor]:
    """Batches ``[n, 3, SIDE, SIDE]`` uint8: a scene that drifts, and another after some hundred frames."""
    draw = torch.Generator().manual_seed(0)
    made, left = 0, 0
    while made < total:
        if left == 0:
            scene = torch.rand(3, 2 * SIDE, 2 * SIDE, generator=draw) * 255
            scene = torch.nn.functional.avg_pool2d(scene[None], 9, 1, 4)[0]
            left = int(torch.randint(100, 400, (), generator=draw))
        n = min(BATCH, left, total - made)
        at = (torch.arange(n) + made) % SIDE
        yield torch.stack([scene[:, a : a + SIDE, a : a + SIDE] for a in at.tolist()]).to(torch.uint8)
        made, left = made + n, left - n


def model(store: int) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from vxl_lightning import registry
    from vxl_lightning.models.build import fresh_cache
    from vxl_lightning.models.language import language_model_folder
    from vxl_lightning.models.prefix import PromptConfig
    from vxl_lightning.models.projector import Projector
    from vxl_lightning.models.video_lm import VideoLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(language_model_folder("smollm2"), local_files_only=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192,
    )  # fmt: skip
    llama = LlamaForCausalLM(config).eval()
    encoder = registry.build("encoder", {"name": "efficientnet_lite0"}).eval()
    tom = registry.build(
        "compressor", {"name": "streaming_tom", "retention": 0.25, "salience": "novelty"}, dim=encoder.dim
    )
    cache = {"name": "quantized", "retention": 0.25, "window": 512, "most": 1024, "store": store, "block": 16}
    made = VideoLM(
        llama,
        tokenizer,
        Projector(tom.out_dim, 256),
        tom,
        prompt=PromptConfig(time_place="after"),
        cache=fresh_cache(llama, cache),
    )
    return made.eval(), encoder


def main() -> None:
    from vxl_lightning.models.streaming import StreamingVideo

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--store", type=int, default=1024, help="groups of four frames that are remembered")
    args = parser.parse_args()
    torch.set_num_threads(2)
    stream = StreamingVideo(*model(args.store))
    every = max(args.frames // 50, BATCH)
    rows: list[dict[str, float]] = []
    seen, start, spent = 0, time.perf_counter(), 0
    print(f"{'frames':>8} {'process MiB':>12} {'stream MiB':>11} {'ms a frame':>11} {'answer ms':>10}")
    for batch in frames(args.frames):
        stream.add(batch, (torch.arange(len(batch)) + seen) / FPS)
        seen += len(batch)
        if seen - spent >= every:
            rate = (time.perf_counter() - start) / (seen - spent) * 1e3
            asked = time.perf_counter()
            stream.ask("What is shown?", ["a cat", "a dog"])
            answer_ms = (time.perf_counter() - asked) * 1e3
            rows.append(
                {
                    "frames": seen,
                    "process_mib": round(resident_mib(), 1),
                    "stream_mib": round(stream.nbytes / 2**20, 2),
                    "ms_a_frame": round(rate, 2),
                    "answer_ms": round(answer_ms, 1),
                }
            )
            r = rows[-1]
            numbers = f"{seen:8} {r['process_mib']:12.1f} {r['stream_mib']:11.2f} {rate:11.2f} {answer_ms:10.1f}"
            print(numbers, "#" * int(r["process_mib"] / 50), flush=True)
            start, spent = time.perf_counter(), seen
    full = [r for r in rows if r["frames"] > 4 * (args.store + 256)]
    flat = {}
    for name in ("process_mib", "stream_mib", "ms_a_frame"):
        first = full[: max(len(full) // 10, 1)]
        flat[name] = round(max(r[name] for r in full) / (sum(r[name] for r in first) / len(first)), 3)
    print("largest after the store has filled, over the mean of the first tenth after that:", flat)
    if args.frames >= 100_000:
        print("recorded in", record("streaming", {"store": args.store, "flat": flat, "curve": rows}))


if __name__ == "__main__":
    main()
