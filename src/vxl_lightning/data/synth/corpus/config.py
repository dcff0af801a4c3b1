"""How much of everything a planted corpus holds."""

from dataclasses import dataclass, fields

from vxl_lightning.data.synth.needles import PLAN, NeedleConfig

_SHAPE = ("num_frames", "fps", "group_frames", "size", "seed", "workers")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """What to plant."""

    clips: int = 72
    """Clean needle clips of training footage, several questions each: what everything else is made from."""
    ordered: int = 10
    """Clips of two needles; which came first needs the order of the frames."""
    one_frame: int = 10
    """Clips whose one needle is on every frame, so that any frame answers."""
    static: int = 8
    """Clips of one photograph that never moves."""
    exact_videos: int = 12
    """Byte-for-byte copies of clean clips under other paths: every second one with the same questions (duplicates),
    the others with other questions (which must survive)."""
    reencoded: int = 10
    """Transcoded copies of clean clips, in five codecs, containers and sizes."""
    trimmed: int = 10
    """Middle parts of clean clips, encoded anew."""
    exact_qa: int = 12
    """Records repeated under another id."""
    blind: int = 60
    """Questions about clean clips that can be answered without looking."""
    misaligned: int = 24
    """Questions about clean clips with the answer of another clip, which the video contradicts."""
    contaminated: int = 5
    """Clips excluded by path, clips excluded by hash, records excluded by id, by digest of their question and answer,
    and by a benchmark's annotations: so many of each."""
    damaged: int = 2
    """Files of every kind of damage, and of every kind that is odd but valid."""
    malformed: int = 2
    """Records of every kind of fault."""
    num_frames: int = 32
    """Frames of a clip."""
    fps: float = 4.0
    """Frames a second of a clip."""
    group_frames: int = 4
    """Frames of a group, as for needles."""
    size: int = 128
    """Side of the frames in px, even."""
    seed: int = 0
    """Seed of everything drawn."""
    workers: int = 2
    """Threads that encode; the corpus does not depend on it."""

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name not in _SHAPE):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")
        self.needles()
        copied = self.exact_videos + self.reencoded + self.trimmed
        usable = self.clips - -(-self.clips // len(PLAN))  # a clip without needles has too few questions to share
        if self.clips < 2 or usable < copied:
            raise ValueError(
                f"clips={self.clips}: {copied} copies are of clips of their own, of which {usable} can be copied; "
                "set clips higher or plant fewer copies"
            )

    def needles(self) -> NeedleConfig:
        """The clips' shape, checked.

        Raises:
            ValueError: frames, groups or size that needles do not fit.
        """
        return NeedleConfig(train=self.clips, val=0, test=0, **{name: getattr(self, name) for name in _SHAPE})
