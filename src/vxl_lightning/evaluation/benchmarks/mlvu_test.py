"""MLVU, test set: nine tasks, six options."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vxl_lightning.evaluation.base import Judged, Listing, Question
from vxl_lightning.evaluation.benchmarks.mlvu import MLVU
from vxl_lightning.evaluation.places import first_there
from vxl_lightning.evaluation.rows import Row, as_json, choose_layout, listing, read_files

KINDS = {
    "topic_reasoning": "holistic",
    "anomaly_reco": "holistic",
    "needleQA": "single-detail",
    "ego": "single-detail",
    "plotQA": "single-detail",
    "sportsQA": "single-detail",
    "order": "multi-detail",
    "count": "multi-detail",
    "tutorialQA": "multi-detail",
}
"""Task, in the names of the published file -> what it needs of a video."""


class MLVUTest(MLVU):
    """The nine multiple-choice tasks of MLVU's test set: 502 questions; see `MLVU` for the rules."""

    title = "MLVU (test)"
    origin: ClassVar[str] = (
        "arXiv 2406.04264; JUNJIE99/MLVU (evaluation/multiple_choice_evaluation/choice_bench.py: check_ans; "
        "evaluation_test/test_bench.py: qa_template, and the format of test_res.json); the authors score this set on a "
        "server, and lmms-eval (tasks/mlvu) is the published scorer; annotations and videos CC-BY-NC-SA-4.0"
    )
    layout = (
        "test-ground-truth/test_mcq_gt.json    as in the dataset MLVU/MLVU_Test; the folder itself also works\n"
        "video/<video>.mp4                     or MLVU_Test/video/"
    )
    folder_name = "mlvu_test"

    def read(self) -> Listing:
        name = "test_mcq_gt.json"
        places = ("test-ground-truth/", "", "MLVU_Test/test-ground-truth/")
        (rows,) = read_files(*choose_layout(self.folder, *([f"{at}{name}"] for at in places)))
        return listing(rows, self._question)

    def _question(self, row: Row) -> Question:
        options = row.texts("candidates", least=2, empty=True)
        video, task = row.path("video"), row.one_of("question_type", tuple(KINDS))
        return Question(
            id=row.word("question_id"),
            video=first_there(self.folder, f"video/{video}", f"MLVU_Test/video/{video}"),
            text=row.text("question"),
            answer=self.letter_of(row, options),
            options=options,
            categories={"task": task, "kind": KINDS[task]},
            meta={"duration": row.number("duration")},
        )

    def submission(self, judged: Sequence[Judged]) -> dict[str, bytes]:
        rows = [
            {
                "question_id": j.question.id,
                "question_type": j.question.categories["task"],
                "option": j.judgement.parsed or "",
            }
            for j in judged
        ]
        return {"test_res.json": as_json(rows)}

    @classmethod
    def miniature(cls, folder: Path) -> None:
        options = [f"{colour} étoile" for colour in ("Red", "Blue", "绿", "Black", "White", "No")]
        rows = [
            {
                "video": f"invented_{n % 4}.mp4",
                "duration": 300.5,
                "question": f"Which star is {n}?",
                "candidates": options,
                "question_type": task,
                "question_id": f"X{n}_0",
                "answer": options[n % 6],
            }
            for n, task in enumerate(KINDS)
        ]
        (folder / "test-ground-truth").mkdir(parents=True, exist_ok=True)
        path = folder / "test-ground-truth" / "test_mcq_gt.json"
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
