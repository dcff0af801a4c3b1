"""MLVU, dev set: seven tasks, four options."""

import json
from pathlib import Path
from typing import ClassVar

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Listing, Problem, Question
from vxl_lightning.evaluation.benchmarks.mlvu import MLVU
from vxl_lightning.evaluation.places import first_there
from vxl_lightning.evaluation.rows import Row, choose_layout, listing, read_files

TASKS = {
    "1_plotQA": "plotQA",
    "2_needle": "needle",
    "3_ego": "ego",
    "4_count": "count",
    "5_order": "order",
    "6_anomaly_reco": "anomaly_reco",
    "7_topic_reasoning": "topic_reasoning",
}
"""Annotation file, and folder of its videos -> task, in the names of the authors' results."""

GENERATED = ("8_sub_scene", "9_summary")
"""Tasks whose replies a remote model grades."""

KINDS = {
    "topic_reasoning": "holistic",
    "anomaly_reco": "holistic",
    "needle": "single-detail",
    "ego": "single-detail",
    "plotQA": "single-detail",
    "order": "multi-detail",
    "count": "multi-detail",
}


class MLVUDev(MLVU):
    """The seven multiple-choice tasks of MLVU's dev set: 2,175 questions; see `MLVU` for the rules."""

    title = "MLVU (dev)"
    origin: ClassVar[str] = (
        "arXiv 2406.04264; JUNJIE99/MLVU (evaluation/multiple_choice_evaluation/choice_bench.py: qa_template, "
        "check_ans, main); annotations and videos CC-BY-NC-SA-4.0"
    )
    layout = (
        "json/1_plotQA.json ... json/7_topic_reasoning.json    as in the dataset MLVU/MVLU, or in data/\n"
        "video/1_plotQA/<video>.mp4 ... video/7_topic_reasoning/<video>.mp4\n"
        "all of it may lie in MLVU/, as the dataset has it"
    )
    folder_name = "mlvu_dev"

    def read(self) -> Listing:
        places = [f"{top}{at}" for top in ("", "MLVU/") for at in ("json/", "data/", "")]
        paths = choose_layout(self.folder, *([f"{at}{name}.json" for name in TASKS] for at in places))
        files = dict(zip(TASKS, read_files(*paths), strict=True))
        file_of = {row.where: name for name, rows in files.items() for row in rows}
        rows = [row for of_file in files.values() for row in of_file]
        return listing(rows, lambda row: self._question(row, file_of[row.where]), self._not_asked(paths[0].parent))

    def _not_asked(self, folder: Path) -> list[Problem]:
        """The tasks that are graded by a model, if they are there."""
        found = []
        for name in GENERATED:
            path = folder / f"{name}.json"
            if path.exists():
                try:
                    told = f"{len(read_files(path)[0]):,} questions"
                except UserError:  # they are not asked anyway
                    told = "questions that cannot be read"
                reason = f"{told} whose replies a remote model grades (G-Avg) are not asked"
                found.append(Problem(path.name, reason, 0))  # they are no part of what is asked here: none is lost
        return found

    def _question(self, row: Row, file: str) -> Question:
        options = row.texts("candidates", least=2, empty=True)
        video, task = row.path("video"), TASKS[file]
        return Question(
            id=f"{file}-{row.key}",  # none is published, and a video may be asked the same twice
            video=first_there(self.folder, f"video/{file}/{video}", f"MLVU/video/{file}/{video}", f"video/{video}"),
            text=row.text("question"),
            answer=self.letter_of(row, options),
            options=options,
            categories={"task": task, "kind": KINDS[task]},
            meta={"duration": row.number("duration")},
        )

    @classmethod
    def miniature(cls, folder: Path) -> None:
        (folder / "json").mkdir(parents=True, exist_ok=True)
        for n, (file, task) in enumerate(TASKS.items()):
            options = [f"{colour} étoile" for colour in ("Red", "Blue", "绿", "Black")]
            rows = [
                {
                    "video": f"invented_{n}.mp4",
                    "duration": 300.5,
                    "question": f"Which star is {i}?",
                    "candidates": options,
                    "answer": options[(n + i) % 4],
                    "question_type": "findNeedle" if task == "needle" else task,
                }
                for i in range(2)
            ]
            (folder / "json" / f"{file}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
