"""Needles: coloured shapes drawn in pixels, anti-aliased, with a dark outline so that they show on any footage."""

import math
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "heart")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 30, 35),
    "green": (35, 170, 60),
    "blue": (40, 80, 225),
    "yellow": (245, 215, 40),
    "purple": (150, 50, 185),
    "white": (245, 245, 245),
}
# One pair a shape, so that every shape and every colour is still seen in training, but never these together.
HELD_OUT = frozenset((list(COLOURS)[(5 * i + 2) % 6], shape) for i, shape in enumerate(SHAPES))
_SCALE = 4  # drawn this much larger, then averaged down
_OUTLINE = 0.14  # of the radius


def _polar(*points: tuple[float, float]) -> list[tuple[float, float]]:
    """Points (radius, degrees clockwise from the top) as x, y."""
    return [(r * math.sin(math.radians(a)), -r * math.cos(math.radians(a))) for r, a in points]


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape inside the unit circle."""
    if shape == "square":
        return _polar(*((1.0, 45 + 90 * i) for i in range(4)))
    if shape == "triangle":
        return _polar(*((1.0, 120 * i) for i in range(3)))
    if shape == "diamond":
        return _polar((1.0, 0), (0.65, 90), (1.0, 180), (0.65, 270))
    if shape == "star":
        return _polar(*((1.0 if i % 2 == 0 else 0.42, 36 * i) for i in range(10)))
    if shape == "cross":
        a, b = 0.32, 0.95
        return [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
    if shape == "heart":
        turns = [math.tau * i / 60 for i in range(60)]
        return [
            (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16.5)
            for t in turns
        ]
    return _polar(*((1.0, 6 * i) for i in range(60)))  # circle and the ring's outside


@cache
def _masks(shape: str, diameter: int) -> tuple[Tensor, Tensor]:
    """Coverage in [0, 1] of the shape with its outline and of its fill alone, each ``[diameter, diameter]``."""
    big = diameter * _SCALE
    middle = (big - 1) / 2

    def draw(factor: float, hole: float | None) -> Tensor:
        image = Image.new("L", (big, big))
        pen = ImageDraw.Draw(image)
        pen.polygon(
            [(middle + x * factor * middle, middle + y * factor * middle) for x, y in _outline(shape)], fill=255
        )
        if hole is not None:
            edge = hole * middle
            pen.ellipse([middle - edge, middle - edge, middle + edge, middle + edge], fill=0)
        full = torch.from_numpy(np.array(image)).float() / 255
        return full.view(diameter, _SCALE, diameter, _SCALE).mean((1, 3))

    ring = shape == "ring"
    return draw(1.0, 0.45 if ring else None), draw(1 - _OUTLINE, 0.45 + _OUTLINE if ring else None)


def draw_needle(frame: Tensor, shape: str, colour: tuple[int, int, int], x: float, y: float, radius: float) -> Tensor:
    """The frame ``[3, h, w]`` uint8 with a shape drawn on it.

    Args:
        frame: stays as it is; a copy is drawn on.
        shape: one of `SHAPES`.
        colour: red, green, blue in 0 to 255.
        x: centre, as a fraction of the width.
        y: centre, as a fraction of the height.
        radius: as a fraction of the frame's short side; the shape must lie inside the frame.
    """
    _, height, width = frame.shape
    diameter = round(2 * radius * min(height, width))
    top, left = round(y * height - diameter / 2), round(x * width - diameter / 2)
    top, left = min(max(top, 0), height - diameter), min(max(left, 0), width - diameter)
    whole, fill = _masks(shape, diameter)
    patch = frame[:, top : top + diameter, left : left + diameter].float()
    patch = (
        patch * (1 - whole) + 20.0 * (whole - fill) + torch.tensor(colour, dtype=torch.float32)[:, None, None] * fill
    )
    drawn = frame.clone()
    drawn[:, top : top + diameter, left : left + diameter] = patch.round().clamp(0, 255).byte()
    return drawn
