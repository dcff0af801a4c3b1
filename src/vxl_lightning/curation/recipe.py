"""What a pruning recipe says: where the data is, which rules run, what the result may cost.

Every rule is ``off``, ``score`` (computed and reported, drops nothing) or ``enforce``. A threshold is a number
(``threshold``) or a fraction of the samples that reach the rule (``quantile``); what it came to is always reported.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

Mode = Literal["off", "score", "enforce"]
Engine = Literal["local", "ray"]
Strategy = Literal["stratified", "random", "all"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule without a number to compare: it finds a fault or it does not."""

    mode: Mode = "enforce"
    """``off``, ``score`` (reported, drops nothing) or ``enforce``."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode={self.mode!r} is not one of {', '.join(get_args(Mode))}")


@dataclass(frozen=True, kw_only=True)
class Limit(Rule):
    """A rule that compares a score: the worst samples fail it."""

    threshold: float | None = None
    """Where the rule begins to fail samples, in units of its score."""
    quantile: float | None = None
    """Or the fraction of the samples that reach the rule which may fail it; the threshold it came to is reported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and self.quantile is not None:
            raise ValueError(
                f"threshold={self.threshold} and quantile={self.quantile}: give one of them, null the other"
            )
        if self.mode != "off" and self.threshold is None and self.quantile is None:
            raise ValueError(f"mode={self.mode} needs a threshold or a quantile")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold={self.threshold} must be a finite number")
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile={self.quantile} must be between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One annotation file of a mixture."""

    json_path: str
    """A JSON list, a JSONL file, or ``{a,b}.json`` for several."""
    sampling_strategy: str = "all"
    """``all``, or ``first:N``, ``end:N``, ``random:N``; N is a number of records or ``50%``. Random is seeded."""
    source: str = ""
    """Where it comes from; a note."""


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """What is learnt of a media file without decoding it."""

    timeout: float = 60.0
    """Seconds for one file, and one more for every 4 MiB of it; then its process is killed and the file quarantined."""
    max_pixels: int = 8192 * 4352
    """Pixels of a frame; larger ones are quarantined unopened."""
    max_duration: float = 24 * 3600.0
    """Seconds of a video."""
    min_complete: float = 0.98
    """Fraction of the header's frames that the content must hold."""
    variable_rate: Rule = field(default_factory=lambda: Rule(mode="score"))
    """Frames that are not evenly spaced in time; sampling here is by time, so they are usable."""
    odd_pixels: Rule = field(default_factory=lambda: Rule(mode="score"))
    """Pixel formats other than 8-bit 4:2:0, which some hardware decoders refuse."""


@dataclass(frozen=True, kw_only=True)
class ConversationRules:
    """What is wrong with a conversation although it is well-formed."""

    placeholder: Rule = field(default_factory=Rule)
    """Exactly one ``<image>`` or ``<video>``, in the first turn."""
    empty_answer: Rule = field(default_factory=Rule)
    """An answer (or a question) without a letter or digit."""
    repeated_answer: Limit = field(default_factory=lambda: Limit(threshold=0.5))
    """Score: the fraction of an answer that repeats what it said before (looping); above the threshold fails."""


@dataclass(frozen=True, kw_only=True)
class DuplicateRules:
    """Samples and videos that are there already."""

    exact_video: Rule = field(default_factory=Rule)
    """Files of the same bytes are stored once, and their samples belong to the one that is kept."""
    exact_qa: Rule = field(default_factory=Rule)
    """The same conversation about the same video (its bytes, not its path)."""
    near_video: Limit = field(default_factory=lambda: Limit(threshold=0.7))
    """Score: fraction of a video's frames that another video shows too, re-encoded, scaled or trimmed; at or above the
    threshold it is a near-duplicate, and the longest of a group is kept."""
    frame_similarity: float = 0.97
    """Cosine between frame descriptors from which two frames show the same."""

    def __post_init__(self) -> None:
        if self.near_video.mode != "off" and self.near_video.threshold is None:
            raise ValueError("near_video takes a threshold, the fraction of frames in common, and no quantile")
        if not 0 < self.frame_similarity <= 1:
            raise ValueError(f"frame_similarity={self.frame_similarity} must be above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class ContaminationRules:
    """What benchmarks hold must not be trained on. Every list is a text file, one entry a line."""

    mode: Mode = "enforce"
    """``off``, ``score`` or ``enforce``."""
    ids: list[str] = field(default_factory=list)
    """Files of sample ids or media paths (with or without folder and suffix)."""
    video_hashes: list[str] = field(default_factory=list)
    """Files of SHA-256 digests of media files."""
    qa_hashes: list[str] = field(default_factory=list)
    """Files of digests of question and answer (`contamination.qa_hash`)."""
    annotations: list[str] = field(default_factory=list)
    """Annotation files of benchmarks in the LLaVA layout, whose questions and answers are excluded."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode={self.mode!r} is not one of {', '.join(get_args(Mode))}")


@dataclass(frozen=True, kw_only=True)
class FrameSettings:
    """How videos are looked at."""

    fps: float = 1.0
    """Frames a second that motion and redundancy are judged by."""
    max_frames: int = 512
    """Most frames looked at of one video."""
    timeout: float = 600.0
    """Seconds for one video."""
    same_frame: float = 0.99
    """Cosine between descriptors above which a frame shows nothing new."""

    def __post_init__(self) -> None:
        if not (self.fps > 0 and self.max_frames >= 1 and self.timeout > 0 and 0 < self.same_frame <= 1):
            raise ValueError(
                f"fps={self.fps}, timeout={self.timeout} must be positive, max_frames={self.max_frames} at least 1, "
                f"same_frame={self.same_frame} above 0 and at most 1"
            )


@dataclass(frozen=True, kw_only=True)
class RedundancyRules:
    """Videos that cost tokens and show little."""

    static: Limit = field(default_factory=lambda: Limit(threshold=0.002))
    """Score: motion, the mean change of luma between looked-at frames, 0 to 1; below the threshold fails."""
    redundancy: Limit = field(default_factory=lambda: Limit(mode="score", threshold=0.05))
    """Score: unique frames a frame looked at; below the threshold fails."""


@dataclass(frozen=True, kw_only=True)
class NecessityRules:
    """Does the answer need the video? Losses of answer tokens, by forward passes alone."""

    model: str = ""
    """Folder of a video language model that `vxl train` or an ablation left, for all steps of the ladder; empty runs
    the blind rule only."""
    language_model: str = "smollm2"
    """A packaged language model or a local transformers folder, which is asked for the blind rule; empty asks that of
    ``model``."""
    frames: int = 4
    """Frames of the few-frames step, and stretches of the shuffled one."""
    max_frames: int = 512
    """Most frames of a step, sampled at the rate that the model was trained on."""
    batch_size: int = 8
    """Questions a forward pass."""
    device: str = "cpu"
    """Where the model runs."""
    blind: Limit = field(default_factory=lambda: Limit(mode="off", threshold=0.1))
    """Score: loss of the answer without the video, nats a token (with ``choices``: of the choice, its mean probability
    over all orders in which the question may name them); below fails. 0.1 is a probability of 0.9."""
    misaligned: Limit = field(default_factory=lambda: Limit(mode="off", threshold=-0.5))
    """Score: blind loss minus the loss with the video; below the threshold the video makes the answer less likely."""
    one_frame: float = 0.5
    """Weight of a sample that one frame answers as well as all do; 1 leaves it alone."""
    ordered: float = 2.0
    """Weight of a sample that shuffled frames answer much worse; 1 leaves it alone."""
    margin: float = 0.25
    """Nats that count as much worse (shuffled) or much better (one frame than none), and within which losses count as
    equal (one frame and all)."""

    def __post_init__(self) -> None:
        if not self.model and not self.language_model:
            raise ValueError("model and language_model are both empty; name one, such as language_model=smollm2")
        if min(self.frames, self.max_frames, self.batch_size) < 1:
            raise ValueError(
                f"frames={self.frames}, max_frames={self.max_frames}, batch_size={self.batch_size}: at least 1 each"
            )


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """What is kept of the samples that passed every rule."""

    strategy: Strategy = "stratified"
    """``stratified``, ``random`` at the same budget, or ``all``."""
    budget: float = 1.0
    """Grid tokens kept: a fraction of all that were read, if at most 1, else a number of tokens."""
    fps: float = 1.0
    """Frames a second that a video costs in training."""
    max_frames: int = 512
    """Most frames it costs."""
    tokens_per_frame: int = 64
    """Grid tokens of a frame."""
    questions_per_video: int = 16
    """Most question-answer pairs of one video; 0 for no cap."""
    minutes_3: float = 0.0
    """Least fraction of the kept tokens from videos of over 3 minutes, as far as there are such."""
    minutes_10: float = 0.0
    """The same, over 10 minutes."""
    clusters: int = 16
    """Clusters of videos by what they show; 1 for none."""

    def __post_init__(self) -> None:
        if not (self.budget > 0 and self.fps > 0 and min(self.max_frames, self.tokens_per_frame, self.clusters) >= 1):
            raise ValueError(
                f"budget={self.budget} and fps={self.fps} must be positive, max_frames={self.max_frames}, "
                f"tokens_per_frame={self.tokens_per_frame} and clusters={self.clusters} at least 1"
            )
        if not (0 <= self.minutes_3 <= 1 and 0 <= self.minutes_10 <= 1 and self.questions_per_video >= 0):
            raise ValueError(
                f"minutes_3={self.minutes_3} and minutes_10={self.minutes_10} are fractions, and "
                f"questions_per_video={self.questions_per_video} is at least 0"
            )


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """What is written."""

    shard_bytes: int = 256 << 20
    """A shard is closed once it is this big."""
    frame_index: bool = False
    """Store where every frame lies, so that seeks into long videos are exact without a scan."""
    reference_seconds: float = 0.0
    """Videos longer than this are referred to by path and hash and stay where they are; 0 copies all."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A pruning recipe: raw videos and annotations in, verified shards out."""

    name: str = "recipe"
    """Title of the report."""
    datasets: list[Source] = field(default_factory=list)
    """The mixture."""
    annotation_root: str = "."
    """Folder that ``json_path`` is relative to."""
    media_root: str = ""
    """Folder that all media paths are relative to; none may leave it."""
    out: str = ""
    """Folder of the result."""
    work: str = ""
    """Folder of finished stages, which recipes may share; empty is ``<out>.work``."""
    seed: int = 0
    """Seed of every choice."""
    overrides: str = ""
    """File of ``keep SAMPLE_ID`` and ``drop SAMPLE_ID`` lines, which outrank every rule."""
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    """Facts about files."""
    conversation: ConversationRules = field(default_factory=ConversationRules)
    """Faults of conversations."""
    duplicates: DuplicateRules = field(default_factory=DuplicateRules)
    """What is there twice."""
    contamination: ContaminationRules = field(default_factory=ContaminationRules)
    """What benchmarks hold."""
    frames: FrameSettings = field(default_factory=FrameSettings)
    """How videos are looked at."""
    redundancy: RedundancyRules = field(default_factory=RedundancyRules)
    """What shows little for its cost."""
    necessity: NecessityRules = field(default_factory=NecessityRules)
    """What is answered without the video."""
    select: SelectSettings = field(default_factory=SelectSettings)
    """What fits the budget."""
    output: OutputSettings = field(default_factory=OutputSettings)
    """What is written."""
    engine: Engine = "local"
    """``local`` processes, or ``ray``: the same functions on a cluster that shares the folders."""
    workers: int = 0
    """Processes (local); 0 is one a core."""

    def __post_init__(self) -> None:
        if self.engine not in get_args(Engine):
            raise ValueError(f"engine={self.engine!r} is not one of {', '.join(get_args(Engine))}")
        if self.workers < 0:
            raise ValueError(f"workers={self.workers} must be at least 0")
