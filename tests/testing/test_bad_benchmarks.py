"""A benchmark that keeps every law, and for every law one that breaks it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.toy import Toy

from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Listing, Question
from vxl_lightning.testing import check_plugin, parametrize_laws
from vxl_lightning.testing.kit import laws


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


def test_shares_that_are_not_the_figure_break_a_law() -> None:
    class Shared(Toy):
        def figures(self, judged: Sequence[Judged]) -> list[Figure]:
            return [replace(f, shares={j.question.id: 1.0 for j in judged}) for f in super().figures(judged)]

    (found,) = [r for r in check_plugin("benchmark", Shared) if r.law == "figures_are_named"]
    assert found.outcome == "broken"


def test_missing_files_are_listed_once_with_what_they_cost(tmp_path: Path) -> None:
    Toy.miniature(tmp_path)
    (tmp_path / "0.mp4").touch()
    toy = Toy(Toy.Config(), tmp_path)
    assert [(p.where, p.questions) for p in toy.missing(toy.read().questions)] == [("1.mp4", 3)]
    asked = [replace(q, subtitles=f"{q.id}.srt" if q.id in "124" else None) for q in toy.read().questions]
    lost = {p.where: p.questions for p in toy.missing(asked)}
    assert lost == {"1.mp4": 3, "1.srt": 0, "2.srt": 1, "4.srt": 1}, "a question that lacks both files is lost once"
