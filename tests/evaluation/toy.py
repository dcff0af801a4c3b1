"""A benchmark of yes and no, two videos, and somebody who answers it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.answerer import Answerer, Asked, Reply, Shown
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Listing, Question


class Toy(Benchmark):
    """Yes or no, of two videos."""

    title, origin, layout, folder_name = "Toy", "this test", "toy.json", "toy"

    def read(self) -> Listing:
        try:
            rows = json.loads((self.folder / "toy.json").read_text())
        except ValueError as error:
            raise UserError(f"{self.folder / 'toy.json'}: not JSON ({error})") from None
        return Listing([Question(**row | {"options": tuple(row["options"])}) for row in rows])

    def prompt(self, question: Question, times: Sequence[float]) -> str:
        return f"{question.text} {' or '.join(question.options)}?"

    def chosen(self, question: Question, option: int) -> str:
        return question.options[option]

    def judge(self, question: Question, reply: str) -> Judgement:
        word = reply.strip()
        parsed = word if word in question.options else None
        return Judgement(float(parsed == question.answer), parsed)

    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        scores = [j.judgement.score for j in judged]
        return [Figure("accuracy", sum(scores) / len(scores), float("nan"), len(scores), headline=True)]

    def truth(self, question: Question) -> str:
        return question.answer

    @classmethod
    def miniature(cls, folder: Path) -> None:
        row = {"text": "Is it?", "options": ["yes", "no"], "categories": {"task": "is"}}
        answers = [row | {"id": str(i), "video": f"{i % 2}.mp4", "answer": ["yes", "no"][i % 2]} for i in range(6)]
        (folder / "toy.json").write_text(json.dumps(answers))


class Sayer(Answerer):
    """Says the same to everything and notes what it is asked; stops after so many replies, as if it was killed."""

    def __init__(self, word: str, dies_after: int | None = None) -> None:
        self.word = word
        self.dies_after = dies_after
        self.asked: list[str] = []

    @property
    def identity(self) -> dict[str, Any]:
        return {"word": self.word}

    def replies(self, shown: Shown, asked: Sequence[Asked]) -> Iterator[Reply]:
        for one in asked:
            if len(self.asked) == self.dies_after:
                raise KeyboardInterrupt
            self.asked.append(one.prompt)
            yield Reply(self.word, counts={"visual_tokens": len(shown.times)}, milliseconds={"answer": 1.0})
