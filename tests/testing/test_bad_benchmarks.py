"""A benchmark that keeps every law, and for every law one that breaks it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Listing, Question
from vxl_lightning.testing import check_plugin, parametrize_laws
from vxl_lightning.testing.kit import laws


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


class Lettered(Toy):
    def chosen(self, question: Question, option: int) -> str:
        return "AB"[option]


class Few(Toy):
    def read(self) -> Listing:
        return Listing(super().read().questions[:2])


class Restless(Toy):
    calls = 0

    def read(self) -> Listing:
        self.calls += 1
        found = super().read().questions
        return Listing([replace(q, text=f"{q.text} {self.calls}") for q in found])


class Secretive(Toy):
    def prompt(self, question: Question, times: Sequence[float]) -> str:
        return question.text


class Unjust(Toy):
    def judge(self, question: Question, reply: str) -> Judgement:
        return replace(super().judge(question, reply), score=0.0)


class Guessing(Toy):
    def judge(self, question: Question, reply: str) -> Judgement:
        found = super().judge(question, reply)
        return found if found.parsed else Judgement(float(question.answer == "yes"), "yes")


class Boundless(Toy):
    def judge(self, question: Question, reply: str) -> Judgement:
        found = super().judge(question, reply)
        return found if found.score else replace(found, score=-1.0 if found.parsed else 0.0)


class Unheaded(Toy):
    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        return [replace(f, headline=False) for f in super().figures(judged)]


class Silent(Toy):
    def read(self) -> Listing:
        try:
            return super().read()
        except ValueError:
            return Listing([])


BAD: dict[str, type[Benchmark]] = {
    "miniature_is_read": Few,
    "reading_repeats": Restless,
    "prompts_ask": Secretive,
    "truth_is_right": Unjust,
    "options_can_be_chosen": Lettered,
    "nothing_is_wrong": Guessing,
    "scores_are_bounded": Boundless,
    "figures_are_named": Unheaded,
    "broken_rows_are_told": Silent,
}


@parametrize_laws("benchmark", Toy)
def test_the_good_one_keeps_every_law(law: Any) -> None:
    law()


def test_there_is_a_bad_one_for_every_law() -> None:
    assert set(BAD) == set(laws("benchmark")) - {"contract"}


@pytest.mark.parametrize("law", BAD)
def test_a_bad_one_breaks_its_law(law: str) -> None:
    outcome = {r.law: r.outcome for r in check_plugin("benchmark", BAD[law])}
    assert outcome[law] == "broken"


def test_missing_files_are_listed_once_with_what_they_cost(tmp_path: Path) -> None:
    Toy.miniature(tmp_path)
    (tmp_path / "0.mp4").touch()
    toy = Toy(Toy.Config(), tmp_path)
    assert [(p.where, p.questions) for p in toy.missing(toy.read().questions)] == [("1.mp4", 3)]
