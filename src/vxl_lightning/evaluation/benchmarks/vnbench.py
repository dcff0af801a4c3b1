"""VNBench: needles in a video haystack, each asked four times with the options in another order."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from vxl_lightning.evaluation.averages import macro, micro, together
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Listing, Problem, Question
from vxl_lightning.evaluation.letters import letter, lettered
from vxl_lightning.evaluation.places import below, first_there
from vxl_lightning.evaluation.rows import Row, RowError, as_json, choose_layout, listing, read_files

__all__ = ["VNBench"]

ANNOTATIONS = "VNBench-main-4try.json"
TRIES = 4
TASKS = {"ret": "retrieval", "ord": "ordering", "cnt": "counting"}
TYPES = (
    "ret_edit1", "ret_insert1", "ret_insert2", "ord_edit1", "ord_insert1", "ord_insert2", "cnt_edit1", "cnt_edit2",
    "cnt_insert1",
)  # fmt: skip
EXCHANGED = {"ret_insert1": "ret_insert2", "ret_insert2": "ret_insert1"}
INSTRUCTION = "Answer with the option's letter from the given choices directly."


class VNBench(Benchmark):
    """VNBench (VideoNIAH, ICLR 2025): 1,350 needles of nine types, each asked in four tries.

    A needle counts only where all four tries are right. ``Overall`` is the mean of the accuracies of the types. Replies
    are read as ``evaluation/eval.py`` reads them: of what stands before the first full stop, the first of A, B, C, D
    that occurs *in the order of the alphabet*, wherever it stands. So "The answer is B" is B and "Answer: B" is A.

    Where we differ:

    - ``eval.py`` leaves out rows whose prediction is null, and needles with none left; here an empty reply is wrong.
    - ``llava_examples/evaluation_utils.py`` reads the first character alone, and fails on an empty reply. On replies
      that begin with their letter the two agree. It also exchanges the names ``ret_insert1`` and ``ret_insert2``, which
      the annotations have the other way round than the paper (and than the names of their videos). The category
      ``type`` has the names of the paper; submissions keep those of the annotations.
    - A needle of which the annotations lack a try can never count, so it is not asked, and listed.
    """

    title: ClassVar[str] = "VNBench"
    origin: ClassVar[str] = (
        "arXiv 2406.09367; github.com/joez17/VideoNIAH (no licence; data for academic research only). Parsing and "
        "averages of evaluation/eval.py; null predictions count as wrong. The judge by GPT-3.5 is not used."
    )
    layout: ClassVar[str] = (
        "VNBench-main-4try.json (huggingface.co/datasets/Joez1717/VNBench)\n"
        "VNBench_new/*.mp4 (the unpacked archive of the repository's README; or VNBench/, videos/)"
    )
    folder_name: ClassVar[str] = "VNBench"

    def read(self) -> Listing:
        (rows,) = read_files(*choose_layout(self.folder, [ANNOTATIONS]))
        return whole_bundles(listing(rows, self._question))

    def _question(self, row: Row) -> Question:
        name = PurePosixPath(row.text("video").replace("\\", "/")).name
        stem, try_ = name.removesuffix(".mp4"), row.index("try", TRIES)
        published = row.one_of("type", TYPES)
        options, truth = row.words("options", least=TRIES, most=TRIES), row.word("gt")
        if truth not in options:
            raise RowError(f"gt: must be one of the options, not {truth!r}")
        return Question(
            id=f"{stem}_{try_}",
            video=first_there(self.folder, *below(("VNBench_new", "VNBench", "videos", ""), name)),
            text=row.text("question"),
            options=options,
            answer=letter(options.index(truth)),
            categories={"type": EXCHANGED.get(published, published), "task": TASKS[published[:3]]},
            bundle=stem,
            meta={"type": published, "try": try_},
        )

    def prompt(self, question: Question, times: Sequence[float]) -> str:
        return "\n".join([question.text, *lettered(question.options), INSTRUCTION])

    def judge(self, question: Question, reply: str) -> Judgement:
        sentence = reply.split(".")[0]
        found = next((one for one in "ABCD" if one in sentence), None)
        return Judgement(float(found == question.answer), found)

    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        if not judged:
            return []
        tries = Counter(j.question.bundle for j in judged)
        needles = [all_or_nothing(j, tries[j.question.bundle]) for j in together(judged)]
        made = [macro("Overall (mean of types, 4 tries)", needles, "type", headline=True)]
        for task in TASKS.values():
            of_task = [j for j in needles if j.question.categories["task"] == task]
            if of_task:
                made.append(macro(f"{task} (mean of its types, 4 tries)", of_task, "type"))
        for type_ in sorted({j.question.categories["type"] for j in needles}):
            of_type = [j for j in needles if j.question.categories["type"] == type_]
            made.append(micro(f"{type_} (4 tries)", of_type))
        return [*made, micro("single tries (micro)", judged)]

    def submission(self, judged: Sequence[Judged]) -> dict[str, bytes]:
        """``vnbench.jsonl``, which ``evaluation/eval.py`` reads; an empty reply is an empty text, never null."""
        rows = [
            {
                "question_id": j.question.id,
                "pred": j.reply,
                "gt": j.question.answer,
                "type": j.question.meta["type"],
                "try": j.question.meta["try"],
                "prompt": self.prompt(j.question, ()),
            }
            for j in judged
        ]
        return {"vnbench.jsonl": as_json(rows, lines=True)}

    @classmethod
    def miniature(cls, folder: Path) -> None:
        needles: list[tuple[str, str, str, list[Any], Any]] = [
            ("film1_ret_insert1", "ret_insert2", "Which vegetable?", ["leek", "beet", "kale", "yam"], "kale"),
            ("film1_cnt_edit1", "cnt_edit1", "How many secret words are there?", [1, 2, 3, 4], 2),
            ("film2_ord_edit1", "ord_edit1", "Which order?", ["a, b", "b, a", "a, a", "b, b"], "b, a"),
        ]
        rows: list[dict[str, Any]] = []
        for stem, type_, question, options, truth in needles:
            for try_ in range(TRIES):
                turned = options[try_:] + options[:try_]
                row = {"video": f"./VNBench_new/{stem}.mp4", "question": question, "options": turned, "gt": truth}
                row |= {"gt_option": letter(turned.index(truth)), "needle_time": [3.0], "type": type_, "try": try_}
                rows.append(row | {"length": 30})
        (folder / ANNOTATIONS).write_text(json.dumps(rows), encoding="utf-8")

    def truth(self, question: Question) -> str:
        return question.answer


def whole_bundles(found: Listing) -> Listing:
    """Without the needles that lack a try, which become problems."""
    tries = Counter(q.bundle for q in found.questions)
    lost = [
        Problem(f"{ANNOTATIONS}: {bundle}", f"has {n} of {TRIES} tries, and counts only with all of them", n)
        for bundle, n in tries.items()
        if n < TRIES
    ]
    return Listing([q for q in found.questions if tries[q.bundle] == TRIES], [*found.problems, *lost])


def all_or_nothing(judged: Judged, tries: int) -> Judged:
    """A needle by its worst try; wrong where not all were asked."""
    return judged if tries == TRIES else replace(judged, judgement=replace(judged.judgement, score=0.0))
