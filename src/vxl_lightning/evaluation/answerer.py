"""Who is evaluated: anything that looks at frames of a video and answers questions about them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Answerer", "Asked", "Reply", "Shown"]


@dataclass(frozen=True)
class Shown:
    """What of a video is shown.

    Attributes:
        path: the video file.
        times: seconds of the frames, rising.
    """

    path: Path
    times: Sequence[float]


@dataclass(frozen=True)
class Asked:
    """One question as a model is asked it.

    Attributes:
        prompt: everything that is said after the video.
        choices: the allowed replies where one of them must be given: they are scored by likelihood and nothing is
            generated; empty for a generated reply.
        max_new_tokens: longest generated reply; 0 leaves it to the answerer.
    """

    prompt: str
    choices: Sequence[str] = ()
    max_new_tokens: int = 0


@dataclass(frozen=True)
class Reply:
    """What was answered.

    Attributes:
        text: the reply, unparsed.
        scores: log-likelihood of every choice, where there were any.
        kept: seconds of the frames of which something reached the language model.
        counts: ``grid_tokens``, ``visual_tokens``, ``text_tokens``, ``kv_length``, ``kv_bytes``, ``flops``.
        milliseconds: ``decode``, ``prepare`` and ``encode`` (a share of the video's), ``compress``, ``select``,
            ``prefill``, ``answer``.
    """

    text: str
    scores: Mapping[str, float] = field(default_factory=dict)
    kept: Sequence[float] = ()
    counts: Mapping[str, float] = field(default_factory=dict)
    milliseconds: Mapping[str, float] = field(default_factory=dict)


class Answerer(ABC):
    """A model with its compressor, selector and settings."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Plain values that its replies depend on: weights, plugins with their parameters and source, versions."""

    @abstractmethod
    def replies(self, shown: Shown, asked: Sequence[Asked]) -> Iterator[Reply]:
        """Look at a video once and answer questions about it independently, each as soon as it is answered.

        Raises:
            DecodeError: the video cannot be read.
        """
