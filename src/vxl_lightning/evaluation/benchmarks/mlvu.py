"""MLVU: what its dev and its test set share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.averages import macro, micro
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Question
from vxl_lightning.evaluation.letters import letter, letter_before_bracket, lettered, ranked_letter
from vxl_lightning.evaluation.rows import Row, RowError

Reading = Literal["authors", "lmms-eval"]

SYSTEM = (
    "Carefully watch this video and pay attention to every detail. "
    "Based on your observations, select the best option that accurately addresses the question."
)


class MLVU(Benchmark):
    """Multiple-choice questions of MLVU (arXiv 2406.04264) in either of its sets.

    The authors' rule to read a reply: the character before the first ``)``, or the whole reply where it has none. It is
    made for models whose reply continues ``Best Option: (``: "B", "B) Blue" and "(B)" are read, "B." and "The answer
    is B" are not. lmms-eval, which the authors recommend too, reads any of these (`letters.ranked_letter`, there with
    the letters A to D for both sets, here with the letters of the options): ``reading="lmms-eval"``.

    M-Avg is the mean of the tasks' accuracies, as by the authors and lmms-eval; VLMEvalKit takes the mean over all
    questions. Both are given. Options that are the same text: the last of them is the right one, as by the authors.

    Where ours differs: a question whose answer is blank or none of its options is a problem and is not asked (five of
    the dev set, as it lies on GitHub); their script asks it. Sub-scene captioning and summarisation (G-Avg) are graded
    by a remote model and are not asked.
    """

    layout: ClassVar[str]

    @dataclass(frozen=True, kw_only=True)
    class Config:
        reading: Reading = "authors"
        """How a letter is found in a reply: ``authors`` or ``lmms-eval``."""

    config: Config

    def __init__(self, config: Any, folder: Path) -> None:
        if config.reading not in get_args(Reading):
            raise UserError(f"reading: must be one of {', '.join(get_args(Reading))}, not {config.reading!r}")
        super().__init__(config, folder)

    def letter_of(self, row: Row, options: Sequence[str]) -> str:
        """Letter of the answer, which is published as its text.

        Raises:
            RowError: it is none of the options.
        """
        answer = row.text("answer")
        places = [i for i, option in enumerate(options) if option == answer]
        if not places:
            raise RowError(f"answer: {answer!r} is none of the options {', '.join(map(repr, options))}")
        return letter(places[-1])

    def prompt(self, question: Question, times: Sequence[float]) -> str:
        options = lettered(question.options, "({letter}) {option}")
        asked = "\n".join([f"Question: {question.text}", "Options:", *options]).rstrip()
        return f"{SYSTEM}\n{asked}\nOnly give the best option.\nBest Option: ("

    def judge(self, question: Question, reply: str) -> Judgement:
        letters = "".join(letter(i) for i in range(len(question.options)))
        rule = letter_before_bracket if self.config.reading == "authors" else ranked_letter
        found = rule(reply, letters)
        return Judgement(float(found == question.answer), found)

    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        return [
            macro("M-Avg (macro: mean of tasks)", judged, "task", headline=True),
            micro("M-Avg (micro: mean of questions)", judged),
        ]

    def truth(self, question: Question) -> str:
        if self.config.reading == "authors":
            return f"{question.answer}) {question.options[ord(question.answer) - ord('A')]}"
        return f"The answer is ({question.answer})."

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"reading": "lmms-eval"}]
