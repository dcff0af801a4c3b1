"""The benchmark contract: questions from local files, what makes a reply right, and the figures it is reported by."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["Benchmark", "Figure", "Judged", "Judgement", "Listing", "Problem", "Question"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about one video.

    Attributes:
        id: unique within its benchmark, as published where it has an id; results resume by it.
        video: path of the video, relative to the benchmark's folder.
        text: the question alone; `Benchmark.prompt` makes of it what a model is asked.
        options: texts of the answers to choose from, in the published order, without letters; empty where the answer
            is free.
        answer: the truth, as the benchmark writes it: a letter, a text, or JSON of a span or of boxes; empty where it
            is not published.
        categories: name of a grouping -> the group it is in, such as {"task": "count", "duration": "long"}; the
            names are the same for all questions of a benchmark.
        bundle: questions that only count together (the four orders of VNBench, a chain of V-STaR), by a common name;
            empty where it stands alone.
        window: seconds of the video that are shown, or None for all of it.
        subtitles: path of the subtitles, relative to the benchmark's folder, or None.
        meta: further published fields that the scorer or the submission needs; plain values.
    """

    id: str
    video: str
    text: str
    answer: str
    options: tuple[str, ...] = ()
    categories: Mapping[str, str] = field(default_factory=dict)
    bundle: str = ""
    window: tuple[float, float] | None = None
    subtitles: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A row that cannot be asked, or a file that is not there.

    Attributes:
        where: file and row, such as ``lvb_val.json[17]``, or the path that is missing.
        reason: what is wrong, the value, and what is allowed.
        questions: how many questions are lost by it, those left out that another problem costs already.
    """

    where: str
    reason: str
    questions: int = 1


@dataclass(frozen=True)
class Listing:
    """What a benchmark's folder holds: the questions that can be asked, in published order, and all that is wrong."""

    questions: Sequence[Question]
    problems: Sequence[Problem] = ()


@dataclass(frozen=True)
class Judgement:
    """What a reply is worth.

    Attributes:
        score: 1 right, 0 wrong, or what the benchmark gives between them (an overlap).
        parsed: the answer that was found in the reply, or None where none was: then ``score`` is 0.
        parts: further measured values of this question by name, such as {"iou": 0.4}.
    """

    score: float
    parsed: str | None
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """A question with its reply and what that is worth."""

    question: Question
    reply: str
    judgement: Judgement


@dataclass(frozen=True)
class Figure:
    """A figure by which a benchmark is reported.

    Attributes:
        name: as its readers know it, such as ``M-Avg (macro)``.
        value: in the units of ``unit``.
        se: standard error clustered by video, or NaN where it is not defined.
        n: questions, or bundles, that count.
        unit: ``accuracy`` in [0, 1], ``iou`` in [0, 1], or another word.
        headline: the figure that papers quote.
        shares: question's id -> what it adds to ``value``, where that is a sum over questions, as a mean is: two rows
            are then tested against each other on this very figure. Empty where it is none, and there is no test.
    """

    name: str
    value: float
    se: float
    n: int
    unit: str = "accuracy"
    headline: bool = False
    shares: Mapping[str, float] = field(default_factory=dict)


class Benchmark(ABC):
    """A published benchmark, read from a local copy in its published layout.

    Built as ``Class(Config(...), folder)``. A subclass writes ``read``, ``prompt``, ``judge`` and ``figures``, and
    where its authors take submissions, ``submission``. Nothing is downloaded, drawn at random, or judged by a remote
    model.

    Attributes:
        title: as published.
        origin: paper, repository and licence; which part of the official scorer is followed, and where ours differs.
        layout: the files that are read, as a user must lay them out under the data root, one a line.
        folder_name: the benchmark's folder under the data root.
        longest_reply: tokens that a reply is given at least, where a right one is longer than a letter or a phrase.
        api_version: of this contract.
    """

    title: ClassVar[str]
    origin: ClassVar[str]
    layout: ClassVar[str]
    folder_name: ClassVar[str]
    longest_reply: ClassVar[int] = 0
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    config: Any

    def __init__(self, config: Any, folder: Path) -> None:
        self.config = config
        self.folder = folder

    @abstractmethod
    def read(self) -> Listing:
        """All questions; rows that cannot be used become problems, never exceptions.

        Raises:
            UserError: the annotation files themselves are missing or cannot be read; the message names every one.
        """

    def missing(self, questions: Sequence[Question]) -> list[Problem]:
        """Videos and subtitles that are not there, each once, with how many questions it costs. A question that lacks
        both counts with its video alone."""
        wanted = dict.fromkeys(path for q in questions for path in (q.video, q.subtitles) if path is not None)
        lost = {path: 0 for path in wanted if not (self.folder / path).exists()}
        for q in questions:
            first = next((path for path in (q.video, q.subtitles) if path in lost), None)
            if first is not None:
                lost[first] += 1
        return [Problem(path, "no such file", n) for path, n in lost.items()]

    @abstractmethod
    def prompt(self, question: Question, times: Sequence[float]) -> str:
        """What a model is asked, in the words of the benchmark's authors; ``times`` are the seconds of the frames that
        it is shown, for subtitles."""

    def chosen(self, question: Question, option: int) -> str:
        """The reply that names an option, for models that are asked which is likeliest."""
        return chr(ord("A") + option)

    @abstractmethod
    def judge(self, question: Question, reply: str) -> Judgement:
        """What a reply is worth, by the rules of the official scorer; a reply that says nothing is wrong, not lucky."""

    @abstractmethod
    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        """The figures that papers report, over all questions that were asked; every average says in its name how it
        was taken."""

    def submission(self, judged: Sequence[Judged]) -> dict[str, bytes]:
        """File name -> content, as the benchmark's authors take results; empty where they take none."""
        return {}

    @classmethod
    @abstractmethod
    def miniature(cls, folder: Path) -> None:
        """Write a tiny copy in the published layout, fields as published, without its videos: what the conformance kit
        reads. At least two videos and six questions that can be asked."""

    @abstractmethod
    def truth(self, question: Question) -> str:
        """A reply that is right, as a model would give it."""

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}]
