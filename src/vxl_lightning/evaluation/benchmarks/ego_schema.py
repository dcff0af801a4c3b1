"""EgoSchema: one five-way question about each of 5,031 three-minute egocentric clips."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from vxl_lightning.evaluation.averages import micro
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Listing, Problem, Question
from vxl_lightning.evaluation.letters import letter, lettered, option_of
from vxl_lightning.evaluation.places import below, first_there
from vxl_lightning.evaluation.rows import Row, RowError, as_json, choose_layout, listing, read_files

__all__ = ["EgoSchema"]

QUESTIONS, ANSWERS = "questions.json", "subset_answers.json"
SUBSET, FULL = (f"{name}/test-00000-of-00001.parquet" for name in ("Subset", "GENERATION"))
OPTIONS = 5
PUBLIC, HIDDEN = "public", "hidden"
INSTRUCTION = "Answer with the option's letter from the given choices directly."
UNREAD = -1
"""What stands for a reply without an answer in a submission: wrong there, too."""


class EgoSchema(Benchmark):
    """EgoSchema (NeurIPS 2023 Datasets and Benchmarks): 5,031 questions, of which 500 have public answers.

    The authors publish no prompt and no rule for generated replies, only answers by index. Both are those of lmms-eval
    (``egoschema``, ``egoschema_subset``), whose rule is MMMU's: after punctuation is stripped from the ends, the
    earliest of the last places of ``(A)``, of ``A`` before a space, and of ``A.``; where there is none and the reply
    has more than five words, an option that it holds with its letter, in any case. A capital A to E at the end of a
    word counts, and so does the "C" that the options call the camera wearer.

    Where we differ: lmms-eval draws an answer at random where it finds none; here that is unparsed and wrong.

    ``subset=False`` asks all questions. Those without a public answer score 0, and no figure counts them: `submission`
    holds the answers for the authors' server.
    """

    title: ClassVar[str] = "EgoSchema"
    origin: ClassVar[str] = (
        "arXiv 2308.09126; github.com/egoschema/EgoSchema (Ego4D licence). Prompt and parse_multi_choice_response of "
        "lmms-eval (Apache-2.0), without its random choice where nothing is found."
    )
    layout: ClassVar[str] = (
        "questions.json, subset_answers.json (of the repository)\n"
        "  or Subset/test-00000-of-00001.parquet, and for subset=false GENERATION/test-00000-of-00001.parquet "
        "(huggingface.co/datasets/lmms-lab/egoschema)\n"
        "videos/<q_uid>.mp4 (or good_clips_git/)"
    )
    folder_name: ClassVar[str] = "EgoSchema"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        subset: bool = True
        """Ask the 500 questions with public answers alone; false asks all 5,031, most of them for a submission."""

    def read(self) -> Listing:
        parquet = [SUBSET] if self.config.subset else [SUBSET, FULL]
        files = choose_layout(self.folder, [QUESTIONS, ANSWERS], parquet)
        tables = read_files(*files)
        if files[0].name == QUESTIONS:
            asked, answers = tables
            known = {row.key: row for row in answers}
            id_field, answer_field = "q_uid", ""
        else:
            asked = tables[-1]
            known = {str(row.value.get("video_idx")): row for row in tables[0]}
            id_field, answer_field = "video_idx", "answer"
        problems: list[Problem] = []
        truths: dict[str, str] = {}
        for key, row in known.items():
            try:
                truths[key] = truth_of(row, answer_field)
            except RowError as error:
                problems.append(Problem(row.where, str(error)))
        refused = known.keys() - truths.keys()
        made = listing(asked, partial(self._question, id_field=id_field, truths=truths, refused=refused), problems)
        lost = truths.keys() - {q.id for q in made.questions}
        # The row of the question is counted where it is broken; where it is not there at all nothing else tells of it.
        absent = [Problem(known[key].where, "answers no question that can be asked", 0) for key in sorted(lost)]
        return Listing(made.questions, [*made.problems, *absent])

    def _question(self, row: Row, id_field: str, truths: dict[str, str], refused: set[str]) -> Question | None:
        uid = row.text(id_field)
        if uid in refused or (self.config.subset and uid not in truths):
            return None
        if id_field == "q_uid":
            options = tuple(row.text(f"option {i}") for i in range(OPTIONS))
        else:
            published = row.texts("option", least=OPTIONS, most=OPTIONS)
            options = tuple(option_of(text, i) for i, text in enumerate(published))
        return Question(
            id=uid,
            video=first_there(self.folder, *below(("videos", "good_clips_git", ""), f"{uid}.mp4")),
            text=row.text("question"),
            options=options,
            answer=truths.get(uid, ""),
            categories={"answers": PUBLIC if uid in truths else HIDDEN},
        )

    def prompt(self, question: Question, times: Sequence[float]) -> str:
        return "\n".join([question.text, *lettered(question.options), INSTRUCTION])

    def judge(self, question: Question, reply: str) -> Judgement:
        found = earliest(reply, question.options)
        return Judgement(float(found is not None and found == question.answer), found)

    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        public = [j for j in judged if j.question.categories["answers"] == PUBLIC]
        return [micro("accuracy (public subset)", public, headline=True)] if public else []

    def submission(self, judged: Sequence[Judged]) -> dict[str, bytes]:
        """Of the full set: json for ``validate.py``, csv for the Kaggle competition; -1 where nothing was answered."""
        if self.config.subset:
            return {}
        indices = {j.question.id: index_of(j.judgement.parsed) for j in judged}
        lines = ["q_uid,answer", *(f"{uid},{index}" for uid, index in indices.items())]
        return {"egoschema.json": as_json(indices), "egoschema.csv": ("\n".join(lines) + "\n").encode()}

    @classmethod
    def miniature(cls, folder: Path) -> None:
        options = ("washes a cup", "paints a wall", "C mends a net", "reads", "walks home")
        rows = [
            {"q_uid": f"{i:08d}-0000", "google_drive_id": f"drive{i}", "question": "What does C do over the video?"}
            | {f"option {k}": options[(i + k) % OPTIONS] for k in range(OPTIONS)}
            for i in range(8)
        ]
        (folder / QUESTIONS).write_text(json.dumps(rows), encoding="utf-8")
        answers = {str(row["q_uid"]): i % OPTIONS for i, row in enumerate(rows) if i not in (2, 5)}
        (folder / ANSWERS).write_text(json.dumps(answers), encoding="utf-8")

    def truth(self, question: Question) -> str:
        return question.answer


def truth_of(row: Row, field: str) -> str:
    """The letter of a public answer, published as an index: a number, or in parquet a text."""
    value = row.value if not field else row.field(field)
    if isinstance(value, str) and value in tuple("01234"):
        value = int(value)
    if type(value) is not int or not 0 <= value < OPTIONS:
        raise RowError(f"answer: must be a whole number from 0 to {OPTIONS - 1}, not {value!r}")
    return letter(value)


def index_of(parsed: str | None) -> int:
    return UNREAD if parsed is None else ord(parsed) - ord("A")


def earliest(reply: str, options: Sequence[str]) -> str | None:
    """The letter whose form has the earliest last place in the reply; None where there is none."""
    for mark in ",.!?;:'":
        reply = reply.strip(mark)
    said = f" {reply} "
    letters = [letter(i) for i in range(len(options))]
    hits = [
        (said.rfind(form.format(one)), one)
        for form in ("({})", "{} ", "{}.")
        for one in letters
        if form.format(one) in said
    ]
    if not hits and len(said.split()) > 5:
        lower = said.lower()
        whole = [text.strip().lower() for text in lettered(options)]
        hits = [(lower.rfind(text), one) for text, one in zip(whole, letters, strict=True) if text in lower]
    return min(hits, key=lambda hit: hit[0])[1] if hits else None
