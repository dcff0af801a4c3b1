"""Pictures of what a compressor kept: real frames, dropped cells dimmed, merged cells outlined by token."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

PALETTE = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#b15928",
    "#6a3d9a",
    "#a6d854",
    "#1b9e77",
    "#e7298a",
    "#8da0cb",
)
"""Colours told apart by colour-blind readers too (Okabe and Ito), cycled over the tokens."""

MAX_FRAMES = 32
_GAP = 4


def kept_picture(
    frames: Tensor, source: Tensor, times: Tensor | None = None, columns: int = 8, width: int = 112
) -> Image.Image:
    """A sheet of frames with the cells that reach the language model.

    A dropped cell is grey and dark. A kept one shows the frame; where its token stands for several
    cells, the token's region is outlined in its own colour, in every frame it reaches into.

    Args:
        frames: ``[T, 3, h, w]`` uint8.
        source: ``[T, H, W]`` the token that carries each cell, or -1 (`VideoTokens.source` of one video).
        times: ``[T]`` seconds, written under the frames, or None.
        columns: frames a row.
        width: pixels of one frame in the sheet.

    Raises:
        ValueError: frames and source disagree in length.
    """
    if len(frames) != len(source):
        raise ValueError(f"kept_picture got {len(frames)} frames but a source of {len(source)}")
    shown = spread(source)
    height = max(1, round(width * frames.shape[2] / frames.shape[3]))
    caption = 0 if times is None else 14
    rows = -(-len(shown) // columns)
    columns = min(columns, len(shown))
    sheet = Image.new(
        "RGB",
        (columns * (width + _GAP) + _GAP, rows * (height + caption + _GAP) + _GAP),
        "white",
    )
    weight = torch.bincount(source[source >= 0].flatten(), minlength=1)  # [tokens] cells each stands for
    for place, t in enumerate(shown):
        frame = Image.fromarray(frames[t].permute(1, 2, 0).contiguous().numpy()).resize((width, height))
        x, y = _GAP + place % columns * (width + _GAP), _GAP + place // columns * (height + caption + _GAP)
        sheet.paste(_mark(frame, source[t], weight), (x, y))
        if times is not None:
            ImageDraw.Draw(sheet).text((x + 1, y + height + 1), f"{float(times[t]):.2f} s", fill="#555555")
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write in the format of the suffix, small enough to be embedded in a page."""
    picture.save(path, quality=82)


def spread(source: Tensor) -> list[int]:
    """At most `MAX_FRAMES` frames of ``source [T, H, W]`` to show: all, else evenly those that kept anything."""
    if len(source) <= MAX_FRAMES:
        return list(range(len(source)))
    kept = (source >= 0).flatten(1).any(1).nonzero().flatten()
    if len(kept) > MAX_FRAMES:
        kept = kept[torch.linspace(0, len(kept) - 1, MAX_FRAMES).round().long()]
    return [int(t) for t in kept]


def _mark(frame: Image.Image, source: Tensor, weight: Tensor) -> Image.Image:
    rows, columns = source.shape
    width, height = frame.size
    xs = [round(c * width / columns) for c in range(columns + 1)]
    ys = [round(r * height / rows) for r in range(rows + 1)]
    dim = frame.convert("L").point(lambda v: int(v * 0.3)).convert("RGB")
    draw = ImageDraw.Draw(frame)
    for r in range(rows):
        for c in range(columns):
            token = int(source[r, c])
            box = (xs[c], ys[r], xs[c + 1], ys[r + 1])
            if token < 0:
                frame.paste(dim.crop(box), box[:2])
                continue
            if weight[token] == 1:
                continue
            colour = PALETTE[token % len(PALETTE)]
            left, top, right, bottom = xs[c], ys[r], xs[c + 1] - 1, ys[r + 1] - 1
            # An edge is drawn where the neighbour belongs to another token, so that a merged region shows as one.
            if c == 0 or source[r, c - 1] != token:
                draw.line((left, top, left, bottom), fill=colour, width=2)
            if c == columns - 1 or source[r, c + 1] != token:
                draw.line((right, top, right, bottom), fill=colour, width=2)
            if r == 0 or source[r - 1, c] != token:
                draw.line((left, top, right, top), fill=colour, width=2)
            if r == rows - 1 or source[r + 1, c] != token:
                draw.line((left, bottom, right, bottom), fill=colour, width=2)
    return frame
