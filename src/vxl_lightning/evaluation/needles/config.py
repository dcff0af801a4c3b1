"""What is planted, where, and who is asked."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from vxl_lightning.data.synth.questions import MAX_NEEDLES
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.config import AskingConfig

KIND = "needles"
TASKS = ("what", "colour", "when", "order", "count")
Pairs = Literal["held_out", "seen", "any"]
FOOTAGE = Literal["test", "val"]


@dataclass(frozen=True, kw_only=True)
class NeedleEvaluationConfig(AskingConfig):
    """Needles at length: a grid of depths by lengths."""

    kind: str = KIND
    name: str = "Needles at length"
    out: str = "runs/needles"
    max_new_tokens: int = 8
    lengths: list[int] = field(default_factory=lambda: [1, 8, 32, 128, 512, 2048, 8192])
    """Frames that are looked at; 32768 on request."""
    depths: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    """Where the shape that is asked about is, as fractions of the length."""
    per_cell: int = 4
    """Haystacks of every length and depth, each planted and looked at anew."""
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    """What is asked about each: what, colour and when of one shape, order of two, count of all."""
    needles: int = 4
    """Most shapes in a haystack; how many there are is drawn, from 1."""
    pairs: Pairs = "held_out"
    """Of which colour and shape the needle that is asked about is: a pair that training never shows (``held_out``),
    one that it does (``seen``), or any."""
    haystack: str = ""
    """A long video; empty makes one from the footage that packages ship."""
    footage: FOOTAGE = "test"
    """Side of the footage that a haystack is made from: test, or val to choose settings by."""
    fps: float = 0.0
    """Frames looked at each second; 0 is what the model was trained on."""
    seed: int = 0
    """Seed of all that is planted."""

    def __post_init__(self) -> None:
        if self.kind != KIND:
            raise UserError(f"kind={self.kind!r} is not {KIND!r}")
        super().__post_init__()
        if self.model.startswith("hf:"):
            raise UserError(f"model={self.model}: needles are for a model that vxl train or an ablation wrote")
        if not self.lengths or min(self.lengths) < 1 or len(set(self.lengths)) < len(self.lengths):
            raise UserError(f"lengths={self.lengths} must be different numbers of frames, such as [32, 512]")
        if not self.depths or len(set(self.depths)) < len(self.depths) or not all(0 <= d <= 1 for d in self.depths):
            raise UserError(f"depths={self.depths} must be different fractions from 0 to 1; such as [0, 0.5, 1]")
        unknown = [t for t in self.tasks if t not in TASKS]
        if unknown or not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise UserError(f"tasks={self.tasks} must be different ones of {', '.join(TASKS)}, at least one")
        if self.per_cell < 1 or not 1 <= self.needles <= MAX_NEEDLES:
            raise UserError(
                f"per_cell={self.per_cell} must be at least 1, needles={self.needles} from 1 to {MAX_NEEDLES}"
            )
        for key, allowed in (("pairs", get_args(Pairs)), ("footage", get_args(FOOTAGE))):
            if getattr(self, key) not in allowed:
                raise UserError(f"{key}={getattr(self, key)!r} is not one of {', '.join(allowed)}")
        if self.footage == "val" and not self.haystack and self.pairs != "seen":
            raise UserError(f"pairs={self.pairs} with footage=val: held-out pairs are for the test; set pairs=seen")
        if not (math.isfinite(self.fps) and self.fps >= 0):
            raise UserError(f"fps={self.fps} must be above 0, or 0 for what the model was trained on")

    def rate(self, recorded: float | None) -> float:
        """Frames looked at each second.

        Args:
            recorded: what the model was trained on, or None where that was not recorded.

        Raises:
            UserError: neither says.
        """
        if fps := self.fps or recorded:
            return fps
        raise UserError(f"model={self.model} does not record its frames a second; give them, such as fps=4")
