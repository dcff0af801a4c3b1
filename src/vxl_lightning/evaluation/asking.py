"""Asking: every question of every row, video by video, as far as its reply is not known yet."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vxl_lightning.data.decoding import DecodeError, probe
from vxl_lightning.data.sampling import sample_times
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.answerer import Answerer, Asked, Reply, Shown
from vxl_lightning.evaluation.base import Benchmark, Question
from vxl_lightning.evaluation.config import EvaluationConfig
from vxl_lightning.evaluation.replies import Replies, fingerprint, hashed, key_of

HOPELESS = 8
"""Questions that a row may refuse before it has answered one."""


@dataclass(frozen=True)
class Answered:
    """A question with its reply, or with the reason why there is none."""

    question: Question
    reply: Reply
    failed: str = ""


@dataclass
class Ledger:
    """Where the time of an evaluation went, in seconds, and how many replies were there before."""

    asking: float = 0.0
    model: float = 0.0
    """Until the replies were there: the answerers' part of ``asking``, with the decoding that they do."""
    asked: int = 0
    known: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Video -> why it cannot be shown."""
    refused: dict[str, dict[str, int]] = field(default_factory=dict)
    """Row -> why it cannot be asked some questions, such as prompts beyond its context -> how many."""
    durations: dict[Path, float] = field(default_factory=dict)
    """Path of a video -> its seconds."""


def ask(
    benchmark: Benchmark,
    questions: Sequence[Question],
    rows: Mapping[str, Answerer],
    config: EvaluationConfig,
    ledger: Ledger,
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, list[Answered]]:
    """The replies of every row to all questions, in their order.

    A video that cannot be read costs its questions in every row, and a question that a row cannot be asked, as it does
    not fit its language model, costs that row; both with the reason. Such replies are not stored, so that a mended file
    is asked about again.

    Args:
        rows: by name.
        ledger: is added to.
        tell: is called with the number of replies whenever some are there.

    Raises:
        UserError: a row refuses its first `HOPELESS` questions.
    """
    folder = Path(config.cache or Path(config.out) / "cache") / "replies"
    hashes = {name: hashed(row.identity) for name, row in rows.items()}
    stores = {name: Replies(folder, hashes[name]) for name in rows}
    found: dict[str, dict[str, Answered]] = {name: {} for name in rows}
    begun = time.perf_counter()
    for (video, window), group in _by_video(questions).items():
        path = benchmark.folder / video
        try:
            ledger.durations[path] = probe(path).duration
            shown = _shown(path, ledger.durations[path], window, config)
            seen = fingerprint(path)
        except DecodeError as error:
            ledger.failed[video] = str(error)
            for name in rows:
                found[name] |= {q.id: Answered(q, Reply(""), str(error)) for q in group}
            tell(len(group) * len(rows))
            continue
        asked = {q.id: _asked(benchmark, q, shown, config) for q in group}
        for name, answerer in rows.items():
            keys = {q.id: key_of(hashes[name], seen, shown.times, asked[q.id]) for q in group}
            new = [q for q in group if keys[q.id] not in stores[name]]
            ledger.known += len(group) - len(new)
            tell(len(group) - len(new))
            why: dict[str, str] = {}
            while left := [q for q in new if keys[q.id] not in stores[name] and q.id not in why]:
                try:
                    replies = _timed(answerer, shown, [asked[q.id] for q in left], ledger)
                    for q, reply in zip(left, replies, strict=True):
                        stores[name].add(keys[q.id], reply)
                        tell(1)
                except DecodeError as error:
                    ledger.failed[video] = str(error)
                    why |= {q.id: str(error) for q in left if keys[q.id] not in stores[name]}
                except UserError as error:  # replies come in order: it is the first that is not there
                    first = next(q for q in left if keys[q.id] not in stores[name])
                    why[first.id] = str(error)
                    _refuse(ledger, name, error, len(stores[name]) > 0)
            tell(len(why))
            found[name] |= {
                q.id: Answered(q, Reply(""), why[q.id]) if q.id in why else Answered(q, stores[name][keys[q.id]])
                for q in group
            }
    ledger.asking += time.perf_counter() - begun
    return {name: [found[name][q.id] for q in questions] for name in rows}


def _refuse(ledger: Ledger, row: str, error: UserError, answers: bool) -> None:
    """Count a question that a row cannot be asked.

    Raises:
        UserError: the row has answered nothing so far, and refused so many that it is the row that is wrong.
    """
    reasons = ledger.refused.setdefault(row, {})
    reasons[str(error)] = reasons.get(str(error), 0) + 1
    if not answers and sum(reasons.values()) >= HOPELESS:
        raise UserError(f"row {row} cannot be asked any of its first {HOPELESS} questions: {error}") from None


def _timed(answerer: Answerer, shown: Shown, asked: Sequence[Asked], ledger: Ledger) -> Iterator[Reply]:
    """The replies; the time until each is there is the model's."""
    if not asked:
        return
    replies = answerer.replies(shown, asked)
    for _ in asked:
        begun = time.perf_counter()
        reply = next(replies)
        ledger.model += time.perf_counter() - begun
        ledger.asked += 1
        yield reply


def _by_video(questions: Sequence[Question]) -> dict[tuple[str, tuple[float, float] | None], list[Question]]:
    """Questions that are shown the same, in order of first appearance."""
    groups: dict[Any, list[Question]] = {}
    for q in questions:
        groups.setdefault((q.video, q.window), []).append(q)
    return groups


def _shown(path: Path, duration: float, window: tuple[float, float] | None, config: EvaluationConfig) -> Shown:
    """Evenly spaced frames of a video, or of the part of it that is shown."""
    begin, end = window or (0.0, duration)
    begin, end = max(0.0, begin), min(duration, end)
    if end <= begin:
        raise DecodeError(f"{path}: the part to be shown, {window} s, is not within its {duration:g} s")
    times = [begin + t for t in sample_times(end - begin, config.fps, config.max_frames)]
    return Shown(path, [t for t in times if t < duration] or [begin])


def _asked(benchmark: Benchmark, question: Question, shown: Shown, config: EvaluationConfig) -> Asked:
    """A question as it is put to a model: the benchmark's prompt, or the question alone where options are scored."""
    if config.answering == "likelihood" and question.options:
        return Asked(question.text, tuple(dict.fromkeys(question.options)))  # one text is published as two options
    longest = max(config.max_new_tokens, benchmark.longest_reply) if benchmark.longest_reply else 0
    return Asked(benchmark.prompt(question, shown.times), max_new_tokens=longest)


def reply_text(benchmark: Benchmark, answered: Answered) -> str:
    """What is judged: the reply, or the name of the option that was likeliest."""
    question, reply = answered.question, answered.reply
    if not reply.scores or reply.text not in question.options:
        return reply.text
    named = [benchmark.chosen(question, i) for i, option in enumerate(question.options) if option == reply.text]
    # Options of one text are one answer: it is right if any of them is.
    return max(named, key=lambda name: benchmark.judge(question, name).score)
