"""LongVideoBench: up to five options, videos of eight seconds to an hour, questions that refer to a moment."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.averages import micro
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Listing, Problem, Question
from vxl_lightning.evaluation.letters import first_letter, letter, lettered
from vxl_lightning.evaluation.rows import Row, RowError, as_json, choose_layout, listing, read_files
from vxl_lightning.evaluation.subtitles import Subtitle, seconds

Split = Literal["validation", "test"]

LETTERS = "ABCDE"
FILES = {
    "validation": ("lvb_val.json", "validation-00000-of-00001.parquet"),
    "test": ("lvb_test_wo_gt.json", "test-00000-of-00001.parquet"),
}

PHRASES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer", "The best option is",
    "The correct option is", "Best answer:", "Best option:",
)  # fmt: skip
"""Taken out of a reply before its first letter is looked for."""

PADDING = "N/A"
"""What stands in the parquet files for an option that a question does not have."""


def read_subtitles(path: Path, duration: float) -> list[Subtitle]:
    """Subtitles as published: a list of ``{timestamp: [start, end], text}`` or of ``{start, end, line}``.

    An end that is null is the end of the video, ``duration``.

    Raises:
        UserError: some cannot be read; it names the file and the first of them.
    """
    (rows,) = read_files(path)
    found = []
    for row in rows:
        try:
            if "timestamp" in row:
                times = row.field("timestamp")
                if not isinstance(times, list) or len(times) != 2:
                    raise RowError(f"timestamp: must be [start, end], not {times!r}")
                both = Row(row.where, {"start": times[0], "end": duration if times[1] is None else times[1]})
                found.append(Subtitle(both.number("start"), both.number("end"), row.text("text", empty=True)))
            else:
                start, end = (seconds(row.text(name), f"{path}: {row.where}") for name in ("start", "end"))
                found.append(Subtitle(start, end, row.text("line", empty=True)))
        except RowError as error:
            raise UserError(f"{path}: {row.where}: {error}") from None
    return found


def covering(subtitles: Sequence[Subtitle], offset: float, times: Sequence[float]) -> list[str]:
    """Texts of the subtitles that a frame falls into, which are taken as a second long at least; their times count from
    ``offset`` seconds before the video."""
    texts = []
    for s in subtitles:
        start, end = s.start - offset, s.end - offset
        if end - start < 1:
            middle = (start + end) / 2
            start, end = middle - 0.5, middle + 0.5
        if any(start < t < end for t in times):
            texts.append(s.text)
    return texts


class LongVideoBench(Benchmark):
    """LongVideoBench (arXiv 2407.15754): the 1,337 questions of its validation set, or its test set.

    A reply is read by the rule that the authors gave to lmms-eval: after some phrases are taken out, the first capital
    A to E, wherever it stands. Where ours differs: theirs guesses at random where there is no such letter; here that is
    wrong. Their average counts every question twice, by duration and by category, which is the mean over questions.

    With ``subtitles`` the lines that fall on the frames shown stand before the question, in their order; the authors
    put each of them between its frames, which a prompt that follows a video cannot. Their loader takes an end that is
    written as a whole number for the end of the video; here it is what it says.

    The answers of the test set are not published: its replies score 0, the figure is how many have a letter, and
    ``submission`` is for the leaderboard.
    """

    title = "LongVideoBench"
    origin: ClassVar[str] = (
        "arXiv 2407.15754; longvideobench/LongVideoBench (longvideobench_dataset.py: prompt, subtitles) and its task "
        "in EvolvingLMMs-Lab/lmms-eval (tasks/longvideobench/utils.py: parse_multi_choice_response and averages); "
        "annotations CC-BY-NC-SA-4.0"
    )
    layout = (
        "lvb_val.json             as in the dataset longvideobench/LongVideoBench; or its "
        "validation-00000-of-00001.parquet\n"
        "lvb_test_wo_gt.json      for split=test; or test-00000-of-00001.parquet\n"
        "videos/<video_path>\n"
        "subtitles/<subtitle_path>    for subtitles=true"
    )
    folder_name = "long_video_bench"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        subtitles: bool = False
        """Ask with the subtitles that fall on the frames shown."""
        split: Split = "validation"
        """``validation``, or ``test``, whose answers are not published."""

    config: Config

    def __init__(self, config: Any, folder: Path) -> None:
        if config.split not in get_args(Split):
            raise UserError(f"split: must be one of {', '.join(get_args(Split))}, not {config.split!r}")
        super().__init__(config, folder)
        self._subtitles = lru_cache(maxsize=4)(read_subtitles)

    def read(self) -> Listing:
        (rows,) = read_files(*choose_layout(self.folder, *([name] for name in FILES[self.config.split])))
        found = listing(rows, self._question)
        return self._checked_subtitles(found) if self.config.subtitles else found

    def _question(self, row: Row) -> Question:
        if "candidates" in row:
            options = row.texts("candidates", least=2, most=len(LETTERS))
        else:
            five = [row.text(f"option{i}") for i in range(len(LETTERS))]
            options = tuple(option for option in five if option != PADDING)
            if len(options) < 2 or five[: len(options)] != list(options):
                raise RowError(f"option0 to option4: must be 2 to 5 options and then {PADDING}, not {five}")
        published = self.config.split == "validation"
        return Question(
            id=row.text("id"),
            video=f"videos/{row.path('video_path')}",
            text=row.text("question"),
            answer=letter(row.index("correct_choice", len(options))) if published else "",
            options=options,
            categories={
                "duration": row.word("duration_group"),
                "question_category": row.text("question_category"),
                "topic_category": row.text("topic_category"),
                "level": row.text("level"),
            },
            subtitles=f"subtitles/{row.path('subtitle_path')}" if self.config.subtitles else None,
            meta={"duration": row.number("duration"), "offset": row.number("starting_timestamp_for_subtitles")},
        )

    def _checked_subtitles(self, found: Listing) -> Listing:
        """Without the questions whose subtitles are there and cannot be read."""
        problems: dict[str, Problem] = {}
        for q in found.questions:
            path = str(q.subtitles)
            if path not in problems and (self.folder / path).exists():
                try:
                    self._subtitles(self.folder / path, q.meta["duration"])
                except UserError as error:
                    lost = sum(other.subtitles == path for other in found.questions)
                    problems[path] = Problem(path, str(error), lost)
        kept = [q for q in found.questions if q.subtitles not in problems]
        return Listing(kept, [*found.problems, *problems.values()])

    def prompt(self, question: Question, times: Sequence[float]) -> str:
        lines = []
        if question.subtitles is not None:
            subtitles = self._subtitles(self.folder / question.subtitles, question.meta["duration"])
            lines = covering(subtitles, question.meta["offset"], times)
        instruction = "Answer with the option's letter from the given choices directly."
        return "\n".join([*lines, f"Question: {question.text}", *lettered(question.options), instruction])

    def judge(self, question: Question, reply: str) -> Judgement:
        found = first_letter(reply.strip(), LETTERS, PHRASES)
        return Judgement(float(found is not None and found == question.answer), found)

    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        if self.config.split == "validation":
            return [micro("Overall (validation)", judged, headline=True)]
        name = "Replies with a letter (the test set's answers are not published)"
        return [micro(name, judged, value=lambda j: float(j.judgement.parsed is not None), unit="share", headline=True)]

    def submission(self, judged: Sequence[Judged]) -> dict[str, bytes]:
        replies = {j.question.id: j.reply for j in judged}
        return {f"longvideobench_{self.config.split}_for_submission.json": as_json(replies)}

    def truth(self, question: Question) -> str:
        return question.answer

    @classmethod
    def miniature(cls, folder: Path) -> None:
        rows = []
        for n in range(6):
            options = [f"{colour} étoile" for colour in ("Red", "Blue", "绿", "Black", "White")][: 2 + n % 4]
            rows.append(
                {
                    "video_id": f"invented_{n // 2}",
                    "question": f"When “hello” is said, which star is {n}?",
                    "question_wo_referring_query": f"Which star is {n}?",
                    "candidates": options,
                    "correct_choice": n % len(options),
                    "position": [10, 20],
                    "topic_category": "KS-Knowledge-STEM",
                    "question_category": ("T2E", "E2O", "SSS")[n % 3],
                    "level": ("L1-Perception", "L2-Relation")[n % 2],
                    "id": f"invented_{n // 2}_{n % 2}",
                    "video_path": f"invented_{n // 2}.mp4",
                    "subtitle_path": f"invented_{n // 2}_en.json",
                    "duration_group": (15, 60, 600)[n // 2],
                    "starting_timestamp_for_subtitles": 0.0,
                    "duration": 12.5,
                    "view_count": 1,
                }
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lvb_val.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        (folder / "subtitles").mkdir(exist_ok=True)
        lines = [{"start": "00:00:00.000", "end": "00:00:00.400", "line": "Hello"}]
        stamps = [{"timestamp": [0.5, None], "text": "再见"}]
        for n, content in enumerate((lines, stamps, lines)):
            path = folder / "subtitles" / f"invented_{n}_en.json"
            path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        hidden = ("correct_choice", "position")
        test = [{k: v for k, v in row.items() if k not in hidden} for row in rows]
        (folder / "lvb_test_wo_gt.json").write_text(json.dumps(test, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"subtitles": True}]
