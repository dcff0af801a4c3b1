"""The ``measure`` step: what one answer of a tuned model costs, and what its compressor kept."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from vxl_lightning import registry
from vxl_lightning.ablation.accounting import Counts, PeakMemory, Timings, flops, milliseconds
from vxl_lightning.ablation.cells import Step
from vxl_lightning.ablation.work import MODEL, Context, device, questions
from vxl_lightning.caches.base import Memory
from vxl_lightning.caches.forward import forward
from vxl_lightning.data.batch import collate
from vxl_lightning.data.decoding import stream_frames
from vxl_lightning.data.loader import ClipDataset
from vxl_lightning.data.manifest import Encoding
from vxl_lightning.data.media import Media
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.errors import UserError
from vxl_lightning.models.prefix import Prefix
from vxl_lightning.models.pretrained import load_pretrained
from vxl_lightning.models.remembering import remember
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.tokens import VideoGrid

COUNTS, TIMINGS, KEPT, FRAMES = "counts.json", "timings.json", "kept.safetensors", "frames.safetensors"


@torch.no_grad()
def measure(step: Step, directory: Path, context: Context) -> None:
    """Measure one video and its first question, step by step, each warmed up and repeated."""
    model = cast(VideoLM, load_pretrained(context.result(step, "model") / MODEL).model).to(device())
    reader = ShardReader(context.data(step.inputs["data"]))
    index = step.inputs["sample"]
    clip = ClipDataset(reader)[index]
    grid = collate([clip]).grid.to(device())
    asked = questions(clip.sample)
    question = asked[0]["question"] if asked else "What happens?"

    decode_ms = encoder_ms = None
    if step.inputs["videos"] is not None:
        assert reader.manifest.encoding is not None
        video = _video(ShardReader(context.data(step.inputs["videos"])), reader.key(index))
        frames, decode_ms, encoder_ms = _front(video, clip.times, reader.manifest.encoding, reader)
        save_file({"frames": frames.contiguous(), "times": clip.times.contiguous()}, directory / FRAMES)

    counts, kept, prefill = _counts(model, grid, question)
    selects = model.selector is not None
    projected = model.project(grid, question)
    with PeakMemory(device()) as memory:
        timings = Timings(
            decode_ms=decode_ms,
            encoder_ms=encoder_ms,
            compressor_ms=milliseconds(lambda: model.project(grid, question), device()),
            selector_ms=milliseconds(lambda: model.prefix(projected, 0, question), device()) if selects else None,
            prefill_ms=milliseconds(prefill, device()),
            peak_memory_mib=0.0,
        )
    save_file({"source": kept.cpu().contiguous()}, directory / KEPT)
    (directory / COUNTS).write_text(json.dumps(asdict(counts)))
    (directory / TIMINGS).write_text(json.dumps(asdict(timings) | {"peak_memory_mib": memory.mib}))


def _counts(model: VideoLM, grid: VideoGrid, question: str) -> tuple[Counts, Tensor, Callable[[], Any]]:
    """Counts, the cells that reach the language model ``[T, H, W]``, and the prefill as a call."""
    projected = model.project(grid, question)
    prefix = model.prefix(projected, 0, question)
    asked = model.embedding(model.ids(model.layout.chat.question(question)))

    def prefill() -> Memory:
        if model.cache is None:  # one pass over any family of models, as answers take it
            embeds = torch.cat([prefix.embeds, asked])[None]
            layers = model.plain.base_model(inputs_embeds=embeds, use_cache=True).past_key_values.layers
            return Memory([x.keys for x in layers], [x.values for x in layers], embeds.shape[1])
        memory = remember(model, model.cache, prefix, question)
        position = torch.arange(memory.position, memory.position + len(asked), device=asked.device)
        _, new = forward(model.plain, asked, memory, position)
        return Memory.joined([memory, new], new.position)

    held = prefill()
    positions = [int(k.shape[2]) for k in held.keys]
    text = len(prefix.embeds) + len(asked) - len(prefix.place)
    keep = torch.zeros(len(projected.tokens.features), dtype=torch.bool, device=asked.device)
    keep[prefix.token] = True
    _, frames, height, width, _ = grid.shape
    counts = Counts(
        grid_tokens=frames * height * width,
        lm_tokens=len(prefix.place),
        layer_mean_tokens=_visual(model, prefix, sum(positions) / len(positions) - text),
        kv_length=max(positions),
        kv_bytes=held.nbytes,
        compressor_flops=flops(lambda: model.prefix(model.project(grid, question), 0, question), model),
        prefill_flops=flops(prefill, model),
    )
    return counts, projected.tokens.select(keep).source[0], prefill


def _visual(model: VideoLM, prefix: Prefix, behind_text: float) -> float:
    """Visual tokens of a layer: what is held besides all text, or what a cache compressor says."""
    return behind_text if model.cache is None else float(model.cache.visual_length(prefix.passage))


def _video(videos: ShardReader, key: str) -> Media:
    try:
        return videos.media(videos.find(key))
    except KeyError:
        raise UserError(
            f"data.test_videos={videos.root} has no video {key!r}; give the shards that data.test was encoded from"
        ) from None


def _front(video: Media, times: Tensor, encoding: Encoding, reader: ShardReader) -> tuple[Tensor, float, float]:
    """Frames ``[T, 3, h, w]`` as the encoder gets them, and milliseconds of decoding and of encoding them."""
    encoder = registry.build("encoder", encoding.encoder).eval().to(device())
    reader.require(encoder.fingerprint())

    def decode() -> Tensor:
        return torch.cat([f for f, _ in stream_frames(video, times.tolist(), encoder.frame_size)])

    frames = decode()
    there = frames.to(device())
    return frames, milliseconds(decode, torch.device("cpu")), milliseconds(lambda: encoder(there), device())
