"""``vxl ask``: one question about any video file."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from vxl_lightning.encoders.base import Encoder
    from vxl_lightning.models.answering import Answer
    from vxl_lightning.tokens import VideoGrid

HELP = "ask a question about any video file"
PICTURES = (".png", ".webp", ".jpg", ".jpeg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        help="folder of a video language model that 'vxl train' or an ablation wrote, or hf:FOLDER for a Hugging Face "
        "video model as it stands",
    )
    parser.add_argument("video", type=Path, help="any video file")
    parser.add_argument("question", help="such as 'Which shape?'")
    parser.add_argument("--choices", help="allowed answers, separated by commas; by default the answer is free text")
    parser.add_argument(
        "--show", type=Path, metavar="PICTURE", help="write the frames and tokens that were kept (.png)"
    )
    parser.add_argument(
        "--fps", type=float, help="frames looked at each second (default: as the model was trained, or 2)"
    )
    parser.add_argument("--max-frames", type=int, help="most frames looked at (default: 8192; 128 for hf:FOLDER)")
    parser.add_argument(
        "--compressor", metavar="NAME", help="of hf:FOLDER: a compressor that needs no training, such as dtd or tree"
    )
    parser.add_argument(
        "--retention", type=float, help="of hf:FOLDER: share of the visual tokens that the compressor keeps"
    )


def run(args: argparse.Namespace) -> int:
    """Answer, with the span it rests on and the cost of every step."""
    from vxl_lightning.errors import UserError

    if not args.question.strip():
        raise UserError("the question is empty; ask something, such as 'Which shape?'")
    choices = None if args.choices is None else [c.strip() for c in args.choices.split(",") if c.strip()]
    if choices == []:
        raise UserError(f"--choices={args.choices!r} holds no answer; separate answers by commas, such as red,green")
    if args.show and args.show.suffix.lower() not in PICTURES:
        raise UserError(f"--show={args.show} must end in one of {', '.join(PICTURES)}")
    if args.show and not args.show.parent.is_dir():
        raise UserError(f"--show={args.show}: {args.show.parent} is not a folder; make it first")
    if args.show and args.show.is_dir():
        raise UserError(f"--show={args.show} is a folder; name a picture in it, such as {args.show}/kept.png")
    if args.video.is_dir():
        raise UserError(f"{args.video} is a folder; name a video file in it")
    if not args.video.is_file():
        raise UserError(f"{args.video}: no such video file; check the path")

    from rich.console import Console
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    ask = _wrapped if args.model.startswith("hf:") else _tuned
    ask(args, choices, Console())
    return 0


def _tuned(args: argparse.Namespace, choices: list[str] | None, console: "Console") -> None:
    """Ask a model that was tuned here."""
    from vxl_lightning import registry
    from vxl_lightning.errors import UserError
    from vxl_lightning.models.pretrained import load_pretrained
    from vxl_lightning.models.video_lm import VideoLM

    if args.compressor is not None or args.retention is not None:
        raise UserError(
            f"--compressor and --retention are for hf:FOLDER; {args.model} was tuned with a compressor, which it keeps"
        )
    loaded = load_pretrained(args.model)
    if not isinstance(loaded.model, VideoLM):
        raise UserError(f"{args.model}: holds a compressor alone, which answers nothing; give a tuned VideoLM's folder")
    if loaded.encoder is None:
        raise UserError(f"{args.model}: does not record its encoder; write it with save_pretrained(..., encoder=...)")
    encoder = registry.build("encoder", loaded.encoder).eval()
    times = _times(args, loaded.fps or 2.0, 8192)
    spent = {"decode": 0.0, "encode": 0.0}
    grid = _encoded(args.video, times, encoder, spent)
    answer = loaded.model.answer(grid, args.question, choices)
    _print(console, answer, len(times), spent)
    if args.show:
        _show(args.show, args.video, times, encoder, answer)
        print(f"picture: {args.show}")


def _wrapped(args: argparse.Namespace, choices: list[str] | None, console: "Console") -> None:
    """Ask a Hugging Face model as it stands, with a compressor in it."""
    import torch

    from vxl_lightning.data.decoding import stream_frames
    from vxl_lightning.errors import UserError
    from vxl_lightning.hub.load import load_hub

    if args.show:
        raise UserError(f"--show={args.show} draws what a tuned model keeps; leave it out with {args.model}")
    if args.retention is not None and args.compressor is None:
        raise UserError(f"--retention={args.retention:g} without a compressor; add one, such as --compressor dtd")
    spec = None if args.compressor is None else {"name": args.compressor}
    if spec is not None and args.retention is not None:
        spec["retention"] = args.retention
    model = load_hub(args.model, compressor=spec)
    times = _times(args, 2.0, 128)
    spent = {"decode": 0.0}
    pieces = list(_timed(stream_frames(args.video, times), spent))
    frames, at = (torch.cat([piece[i] for piece in pieces]) for i in (0, 1))
    _print(console, model.answer(frames, at, args.question, choices), len(times), spent)


def _times(args: argparse.Namespace, fps: float, most: int) -> list[float]:
    """Seconds of the frames that are looked at."""
    from vxl_lightning.data.decoding import probe
    from vxl_lightning.data.sampling import sample_times

    info = probe(args.video)
    fps = args.fps if args.fps is not None else fps
    if fps > info.fps > 0:
        print(f"the video has {info.fps:g} frames a second, not {fps:g}: all of them are looked at", file=sys.stderr)
        fps = info.fps
    return sample_times(info.duration, fps, args.max_frames if args.max_frames is not None else most)


def _encoded(video: Path, times: list[float], encoder: "Encoder", spent: dict[str, float]) -> "VideoGrid":
    """Decode and encode chunk by chunk, so that the frames of a long video are never held together."""
    import torch

    from vxl_lightning.data.decoding import stream_frames
    from vxl_lightning.tokens import VideoGrid

    features, seconds, importance = [], [], []
    for frames, at in _timed(stream_frames(video, times, encoder.frame_size), spent):
        start = time.perf_counter()
        encoded = encoder(frames)
        spent["encode"] += (time.perf_counter() - start) * 1e3
        features.append(encoded.features.float())
        seconds.append(at)
        if encoded.importance is not None:
            importance.append(encoded.importance.float())
    side = {"importance": torch.cat(importance)[None]} if importance else {}
    return VideoGrid.of(torch.cat(features)[None], torch.cat(seconds)[None], **side)


def _timed(chunks: Iterator[Any], spent: dict[str, float]) -> Iterator[tuple["Tensor", "Tensor"]]:
    """The chunks, and what waiting for each of them took."""
    while True:
        start = time.perf_counter()
        chunk = next(chunks, None)
        spent["decode"] += (time.perf_counter() - start) * 1e3
        if chunk is None:
            return
        yield chunk


def _print(console: "Console", answer: "Answer", frames: int, spent: dict[str, float]) -> None:
    from rich.table import Table

    console.print(f"[bold]{_plain(answer.text) or '(nothing)'}[/bold]")
    if answer.span is not None:
        console.print(f"rests most on {answer.span[0]:.1f} to {answer.span[1]:.1f} s", style="dim")
    if answer.scores is not None:
        ranked = sorted(answer.scores.items(), key=lambda item: -item[1])
        console.print("log-likelihood: " + ", ".join(f"{_plain(c)} {s:.2f}" for c, s in ranked), style="dim")
    table = Table("step", "ms", "gives", box=None, header_style="bold", pad_edge=False)
    table.columns[1].justify = "right"
    counts = answer.counts
    gives = {
        "decode": f"{frames:,} frames",
        "encode": f"{counts['grid_tokens']:,} grid tokens",
        "prepare": f"{counts['grid_tokens']:,} grid tokens, {counts['visual_tokens']:,} into the language model",
        "compress": f"{len(answer.tokens.features):,} tokens",
        "select": f"{counts['visual_tokens']:,} tokens into the language model, with {counts['text_tokens']:,} of text",
        "answer": f"{counts['kv_length']:,} cached positions, {counts['kv_bytes'] / 2**20:.2f} MiB",
        "span": "the stretch the answer rests on",
    }
    for step, milliseconds in (spent | answer.milliseconds).items():
        table.add_row(step, f"{milliseconds:.1f}", gives[step])
    console.print(table)


def _show(path: Path, video: Path, times: list[float], encoder: "Encoder", answer: "Answer") -> None:
    import torch

    from vxl_lightning.data.decoding import stream_frames
    from vxl_lightning.reporting.pictures import kept_picture, save_picture, spread

    keep = torch.zeros(len(answer.tokens.features), dtype=torch.bool)
    keep[answer.kept.cpu()] = True
    source = answer.tokens.select(keep.to(answer.kept.device)).source[0].cpu()
    shown = spread(source)
    chunks = list(stream_frames(video, [times[t] for t in shown], encoder.frame_size))
    frames, at = (torch.cat([chunk[i] for chunk in chunks]) for i in (0, 1))
    save_picture(kept_picture(frames, source[shown], at), path)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
