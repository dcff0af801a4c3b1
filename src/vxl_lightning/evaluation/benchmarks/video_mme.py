"""Video-MME: four options, videos from seconds to an hour, with and without subtitles."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import pyarrow
import pyarrow.parquet

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.averages import micro
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Listing, Problem, Question
from vxl_lightning.evaluation.letters import first_letter, lettered, option_of
from vxl_lightning.evaluation.places import first_there
from vxl_lightning.evaluation.rows import Row, as_json, choose_layout, listing, read_files
from vxl_lightning.evaluation.subtitles import Subtitle, read_srt, showing

LETTERS = "ABCD"
DURATIONS = ("short", "medium", "long")

PHRASES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option isThe correct option is", "Best answer:Best option:",
    "Answer:", "Option:", "The correct answer", "The correct option",
)  # fmt: skip
"""Taken out of a reply before its first letter is looked for. Two are pairs that the authors run into one, so that
neither half is taken out: "Best option: C" is read as B, as theirs reads it."""

WITHOUT_SUBTITLES = 156
"""Videos, of 900, for which the authors publish none; every long one has them."""

INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)


class VideoMME(Benchmark):
    """Video-MME (arXiv 2405.21075): 2,700 questions of 900 videos, three a video, in three durations.

    A reply is read by the authors' rule: after some phrases are taken out, the first capital A to D, wherever it
    stands. Where ours differs: a reply without a letter is wrong here, while their script leaves it out of the average;
    their figure is given beside ours. lmms-eval reads letters by another rule (`letters.ranked_letter`) and prompts for
    "the video and the subtitles" even without subtitles; we prompt as the authors do.

    Subtitles are those that show at the frames that a model sees, each once, one a line, as the authors ask. A short or
    medium video without a file is asked as in the setting without subtitles, since not all have any.
    """

    title = "Video-MME"
    origin: ClassVar[str] = (
        "arXiv 2405.21075; MME-Benchmarks/Video-MME (prompt) and thanku-all/parse_answer (eval_your_results.py); "
        "academic use only"
    )
    layout = (
        "videomme/test-00000-of-00001.parquet    as in the dataset lmms-lab/Video-MME; beside the folders also works\n"
        "data/<videoID>.mp4                      or .MP4 or .mkv, or in video/\n"
        "subtitle/<videoID>.srt                  for subtitles=true"
    )
    folder_name = "video_mme"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        subtitles: bool = False
        """Ask with the subtitles of the frames that are shown."""

    config: Config

    def __init__(self, config: Any, folder: Path) -> None:
        super().__init__(config, folder)
        self._subtitles = lru_cache(maxsize=4)(read_srt)  # a video's three questions come one after another

    def read(self) -> Listing:
        name = "test-00000-of-00001.parquet"
        (rows,) = read_files(*choose_layout(self.folder, [f"videomme/{name}"], [name]))
        found = listing(rows, self._question)
        return self._checked_subtitles(found) if self.config.subtitles else found

    def _question(self, row: Row) -> Question:
        video = row.path("videoID")
        duration = row.one_of("duration", DURATIONS)
        published = row.texts("options", least=4, most=4)
        srt = f"subtitle/{video}.srt"
        shown = self.config.subtitles and (duration == "long" or (self.folder / srt).exists())
        return Question(
            id=row.word("question_id"),
            video=first_there(
                self.folder, *(f"{at}/{video}{end}" for at in ("data", "video") for end in (".mp4", ".MP4", ".mkv"))
            ),
            text=row.text("question"),
            answer=row.one_of("answer", LETTERS),
            options=tuple(option_of(option, i) for i, option in enumerate(published)),
            categories={
                "duration": duration,
                "domain": row.text("domain"),
                "sub_category": row.text("sub_category"),
                "task_type": row.text("task_type"),
            },
            subtitles=srt if shown else None,
            meta={"video_id": row.word("video_id"), "options": list(published)},
        )

    def _checked_subtitles(self, found: Listing) -> Listing:
        """Without the questions whose subtitles cannot be read, and with a word on a folder that is not complete."""
        problems = list(found.problems)
        bad: set[str] = set()
        for srt in dict.fromkeys(q.subtitles for q in found.questions if q.subtitles):
            if not (self.folder / srt).exists():
                continue  # `missing` tells it
            try:
                self._subtitles(self.folder / srt)
            except UserError as error:
                bad.add(srt)
                problems.append(Problem(srt, str(error), sum(q.subtitles == srt for q in found.questions)))
        without = len({q.video for q in found.questions if q.subtitles is None})
        if without > WITHOUT_SUBTITLES:
            reason = f"{without} videos have none and are asked without; {WITHOUT_SUBTITLES} are published without"
            problems.append(Problem("subtitle", reason, 0))
        return Listing([q for q in found.questions if q.subtitles not in bad], problems)

    def prompt(self, question: Question, times: Sequence[float]) -> str:
        shown: Sequence[Subtitle] = ()
        if question.subtitles is not None:
            shown = showing(self._subtitles(self.folder / question.subtitles), times)
        options = question.meta.get("options") or lettered(question.options)
        heading = ["This video's subtitles are listed below:", *(s.text for s in shown)] if shown else []
        return "\n".join([*heading, INSTRUCTION, question.text, *options, "The best answer is:"])

    def judge(self, question: Question, reply: str) -> Judgement:
        found = first_letter(reply.strip(), LETTERS, PHRASES)
        return Judgement(float(found == question.answer), found)

    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        setting = "w subs" if self.config.subtitles else "w/o subs"
        made = [micro(f"Overall ({setting})", judged, headline=True)]
        if parsed := [j for j in judged if j.judgement.parsed is not None]:
            made.append(micro(f"Overall ({setting}, replies without a letter left out as by the authors)", parsed))
        return made

    def submission(self, judged: Sequence[Judged]) -> dict[str, bytes]:
        videos: dict[str, dict[str, Any]] = {}
        for j in judged:
            q = j.question
            video = videos.setdefault(
                q.meta["video_id"],
                {
                    "video_id": q.meta["video_id"],
                    **{name: q.categories[name] for name in ("duration", "domain", "sub_category")},
                    "questions": [],
                },
            )
            video["questions"].append(
                {
                    "question_id": q.id,
                    "task_type": q.categories["task_type"],
                    "question": q.text,
                    "options": list(q.meta["options"]),
                    "answer": q.answer,
                    "response": j.reply,
                }
            )
        return {"video_mme_responses.json": as_json(list(videos.values()))}

    def truth(self, question: Question) -> str:
        return question.answer

    @classmethod
    def miniature(cls, folder: Path) -> None:
        rows = [
            {
                "video_id": f"{v + 1:03d}",
                "duration": duration,
                "domain": "Knowledge",
                "sub_category": "Geography",
                "url": f"https://example.org/{v}",
                "videoID": f"invented_{v}",
                "question_id": f"{v + 1:03d}-{i + 1}",
                "task_type": ("Counting Problem", "OCR Problems", "Action Reasoning")[i],
                "question": f"How many étoiles does scene {i} show?",
                "options": [f"{letter}. {n + i} 颗." for n, letter in enumerate(LETTERS)],
                "answer": LETTERS[(v + i) % 4],
            }
            for v, duration in enumerate(DURATIONS)
            for i in range(3)
        ]
        (folder / "videomme").mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(rows), folder / "videomme" / "test-00000-of-00001.parquet"
        )
        (folder / "subtitle").mkdir(exist_ok=True)
        for v in range(len(DURATIONS)):
            cues = f"1\n00:00:00,000 --> 00:00:00,900\nHello {v}\n\n2\n00:00:05,000 --> 00:00:06,000\nBye\n"
            (folder / "subtitle" / f"invented_{v}.srt").write_text(cues, encoding="utf-8")

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"subtitles": True}]
