"""A corpus while it is made: what every step adds to."""

import random
from collections.abc import Callable
from pathlib import Path

import torch

from vxl_lightning.data.synth.corpus.clips import Clip, Studio
from vxl_lightning.data.synth.corpus.config import CorpusConfig
from vxl_lightning.data.synth.corpus.entries import Entry, Truth
from vxl_lightning.data.synth.corpus.exclude import Exclusions
from vxl_lightning.data.synth.footage import Footage
from vxl_lightning.data.synth.writing import generator_for


class Corpus:
    """A folder, and what is known of what lies in it.

    Args:
        config: what to plant.
        footage: what clips are cut from.
        root: the folder to fill.
        tick: called after every media file.

    Attributes:
        clips: the clean clips.
        media: the truth about every media file.
        entries: all records.
        exclusions: what the exclusion lists hold.
    """

    def __init__(self, config: CorpusConfig, footage: Footage, root: Path, tick: Callable[[], None]) -> None:
        self.config = config
        self.studio = Studio(config, footage)
        self.root = root
        self.tick = tick
        self.clips: list[Clip] = []
        self.media: dict[str, Truth] = {}
        self.entries: list[Entry] = []
        self.exclusions = Exclusions()

    def path(self, media: str) -> Path:
        """Where a media file lies; its folder is there."""
        path = self.root / "media" / media
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def plant(self, media: str, truth: Truth) -> None:
        """Note a media file that was made."""
        self.media[media] = truth
        self.tick()

    def order(self, what: str, count: int) -> list[int]:
        """The numbers below ``count`` in a chance order of its own for every ``what``."""
        order: list[int] = torch.randperm(count, generator=generator_for("corpus", self.config.seed, what)).tolist()
        return order

    def chance(self, what: str, number: int) -> random.Random:
        return random.Random(f"corpus/{self.config.seed}/{what}/{number}")
