"""The laws of benchmarks, on the miniature that each writes of itself."""

import math
import random
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vxl_lightning.evaluation.base import Benchmark, Judged, Listing
from vxl_lightning.testing.case import Law, expect

NOTHING = ("", "   \n", "I cannot tell.", "🙂🙂", "…")
"""Replies that answer nothing."""


@dataclass(frozen=True)
class BenchmarkCase:
    """A benchmark class with one set of ``Config`` parameters.

    Attributes:
        cls: the class under test.
        params: keyword arguments of its ``Config``.
        siblings: all sets of parameters it is tested with.
    """

    cls: Any
    params: Mapping[str, Any]
    siblings: Sequence[Mapping[str, Any]] = ()

    def build(self) -> Benchmark:
        """An instance on a fresh miniature, which goes with this case."""
        folder = Path(tempfile.mkdtemp(prefix="vxl-benchmark-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.cls.miniature(folder)
        benchmark: Benchmark = self.cls(self.cls.Config(**self.params), folder)
        return benchmark

    @cached_property
    def made(self) -> Benchmark:
        return self.build()

    @cached_property
    def listing(self) -> Listing:
        return self.made.read()

    def judged(self, replies: Sequence[str]) -> list[Judged]:
        asked = zip(self.listing.questions, replies, strict=True)
        return [Judged(q, reply, self.made.judge(q, reply)) for q, reply in asked]

    def truths(self) -> list[str]:
        return [self.made.truth(q) for q in self.listing.questions]


def miniature_is_read(case: BenchmarkCase) -> None:
    """The miniature has at least six questions of two videos, unique ids, no problem but the videos that it leaves out,
    and one set of groupings."""
    questions = case.listing.questions
    expect(len(questions) >= 6, f"read gave {len(questions)} questions of the miniature")
    expect(len({q.video for q in questions}) >= 2, "all questions of the miniature are of one video")
    expect(len({q.id for q in questions}) == len(questions), "two questions have one id")
    expect(not case.listing.problems, f"the miniature has problems: {case.listing.problems[:1]}")
    names = {tuple(sorted(q.categories)) for q in questions}
    expect(len(names) == 1, f"categories differ between questions: {sorted(names)[:2]}")
    lost = case.made.missing(questions)
    expect({p.where for p in lost} >= {q.video for q in questions}, "missing does not name every video that is absent")


def reading_repeats(case: BenchmarkCase) -> None:
    """Reading twice gives the same questions in the same order."""
    expect(
        list(case.made.read().questions) == list(case.listing.questions), "read gave other questions the second time"
    )


def prompts_ask(case: BenchmarkCase) -> None:
    """A prompt holds every option, and is the same for the same frames."""
    for question in case.listing.questions:
        prompt = case.made.prompt(question, [0.0, 1.0])
        absent = [option for option in question.options if option not in prompt]
        expect(not absent, f"the prompt of {question.id} leaves out {absent[:1]}")
        expect(bool(prompt.strip()), f"the prompt of {question.id} is empty")
        expect(prompt == case.made.prompt(question, [0.0, 1.0]), f"the prompt of {question.id} changes")


def truth_is_right(case: BenchmarkCase) -> None:
    """A right reply is parsed and scores 1, and all right replies together give the best figures."""
    judged = case.judged(case.truths())
    for j in judged:
        expect(j.judgement.parsed is not None, f"{j.question.id}: nothing was found in the right reply {j.reply!r}")
        expect(math.isclose(j.judgement.score, 1.0), f"{j.question.id}: {j.reply!r} scored {j.judgement.score}")
    for f in case.made.figures(judged):
        if f.unit == "accuracy":
            expect(math.isclose(f.value, 1.0), f"{f.name} is {f.value} where all is right")


def options_can_be_chosen(case: BenchmarkCase) -> None:
    """Of a question's options one is right, and every one is understood when it is named."""
    for question in case.listing.questions:
        named = [case.made.judge(question, case.made.chosen(question, i)) for i in range(len(question.options))]
        expect(all(j.parsed is not None for j in named), f"{question.id}: an option that was named is not understood")
        right = sum(j.score == 1 for j in named)
        expect(right == 1 or not named, f"{question.id}: {right} of its options are right")


def nothing_is_wrong(case: BenchmarkCase) -> None:
    """Replies that answer nothing are unparsed and score 0: no guess, no luck."""
    for reply in NOTHING:
        for j in case.judged([reply] * len(case.listing.questions)):
            expect(j.judgement.parsed is None, f"{j.question.id}: {reply!r} was read as {j.judgement.parsed!r}")
            expect(j.judgement.score == 0, f"{j.question.id}: {reply!r} scored {j.judgement.score}")


def scores_are_bounded(case: BenchmarkCase) -> None:
    """Every score lies in [0, 1], whatever is replied, and judging repeats."""
    truths = case.truths()
    for replies in (truths[1:] + truths[:1], ["A"] * len(truths), ["42"] * len(truths), ["[{}]"] * len(truths)):
        judged = case.judged(replies)
        for j in judged:
            expect(0 <= j.judgement.score <= 1, f"{j.question.id}: {j.reply!r} scored {j.judgement.score}")
        expect(judged == case.judged(replies), "judging the same replies gave another result")


def figures_are_named(case: BenchmarkCase) -> None:
    """Figures have names of their own, finite values, which are the sums of their shares, a count, and one headline at
    least; order does not matter."""
    truths = case.truths()
    judged = case.judged(truths[1:] + truths[:1])
    figures = case.made.figures(judged)
    names = [f.name for f in figures]
    expect(len(set(names)) == len(names), f"two figures have one name: {sorted(names)}")
    expect(any(f.headline for f in figures), "no figure is the headline")
    expect(
        all(math.isfinite(f.value) and f.n > 0 for f in figures), f"a figure is not finite or counts nothing: {names}"
    )
    for f in figures:
        total = sum(f.shares.values())
        expect(not f.shares or math.isclose(total, f.value, abs_tol=1e-9), f"{f.name} is {f.value}, its shares {total}")
    shuffled = random.Random(0).sample(judged, len(judged))
    for a, b in zip(figures, case.made.figures(shuffled), strict=True):
        same = a.name == b.name and math.isclose(a.value, b.value, abs_tol=1e-12) and a.n == b.n
        expect(same, f"{a.name} is {asdict(a)} and, for other orders of questions, {asdict(b)}")


def broken_rows_are_told(case: BenchmarkCase) -> None:
    """A damaged annotation file is an error that names it, never silence."""
    benchmark = case.build()
    files = [
        p for p in sorted(benchmark.folder.rglob("*")) if p.suffix in (".json", ".jsonl", ".parquet", ".csv", ".tsv")
    ]
    expect(bool(files), "the miniature has no annotation file")
    for path in files:
        path.write_bytes(b"\x00 not what it says")
    try:
        found = benchmark.read()
    except ValueError as error:
        told = any(path.name in str(error) for path in files)
        expect(told, f"the error names none of the damaged files: {error}")
    else:
        expect(bool(found.problems) and not found.questions, "damaged annotations were read without a word")


BENCHMARK_LAWS: tuple[Law, ...] = (
    miniature_is_read,
    reading_repeats,
    prompts_ask,
    truth_is_right,
    options_can_be_chosen,
    nothing_is_wrong,
    scores_are_bounded,
    figures_are_named,
    broken_rows_are_told,
)
