"""MVBench: twenty temporal tasks over short videos of eleven sources."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from vxl_lightning.evaluation.averages import macro, micro
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Listing, Problem, Question
from vxl_lightning.evaluation.letters import letter, lettered
from vxl_lightning.evaluation.places import below, first_there
from vxl_lightning.evaluation.rows import Row, RowError, as_json, choose_layout, listing, read_files

__all__ = ["MVBench"]

SYSTEM = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question.\n"
)
INSTRUCTION = "\nOnly give the best option."
ROOTS = ("video", "", "video/data0613", "data0613")
"""Folders that hold those of the sources: as unpacked from the main branch, or as on the branch with clips; videos of
questions that were replaced later came in an archive of their own."""
FRAME_RATE = 3.0
"""Frames a second of the folders of frames."""


class Source(NamedTuple):
    """Where the videos of a task lie.

    Attributes:
        whole: folder of the videos as their sources published them.
        clips: folder of the copies on the branch ``video``: cut to the window, or converted.
        windowed: rows have ``start`` and ``end``, and only that of a whole video is shown.
        frames: a video is a folder of images, three a second.
    """

    whole: str
    clips: str = ""
    windowed: bool = False
    frames: bool = False


CHARADES = Source("star/Charades_v1_480", "star/Charades_segment", windowed=True)
CLEVRER = Source("clevrer/video_validation")
PERCEPTION = Source("perception/videos")
TASKS = {
    "Action Sequence": CHARADES,
    "Action Prediction": CHARADES,
    "Action Antonym": Source("ssv2_video", "ssv2_video_mp4"),
    "Fine-grained Action": Source("Moments_in_Time_Raw/videos"),
    "Unexpected Action": Source("FunQA_test/test"),
    "Object Existence": CLEVRER,
    "Object Interaction": CHARADES,
    "Object Shuffle": PERCEPTION,
    "Moving Direction": CLEVRER,
    "Action Localization": Source("sta/sta_video", "sta/sta_video_segment", windowed=True),
    "Scene Transition": Source("scene_qa/video"),
    "Action Count": PERCEPTION,
    "Moving Count": CLEVRER,
    "Moving Attribute": CLEVRER,
    "State Change": PERCEPTION,
    "Fine-grained Pose": Source("nturgbd", "nturgbd_convert"),
    "Character Order": PERCEPTION,
    "Egocentric Navigation": Source("vlnqa"),
    "Episodic Reasoning": Source("tvqa/frames_fps3_hq", "tvqa/video_fps3_hq_segment", windowed=True, frames=True),
    "Counterfactual Inference": CLEVRER,
}


class MVBench(Benchmark):
    """MVBench (CVPR 2024): 4,000 questions, 200 of each of 20 tasks.

    Prompt and rule are those of the authors' ``mvbench.ipynb``. A model of theirs continues ``Best option:(``, so a
    reply is read with that bracket before it: of its first line the first word, in any case, full stops aside, must be
    ``(a``, ``(a)`` or hold ``(a)``. So "A", "A.", "A) text" and "(A) text" are A; "The answer is A" is nothing.

    Where we differ:

    - by the authors' rule a reply that is empty, or begins with a lone full stop, is always right; here it is wrong.
    - by it a first word that names several letters, "(A)(B)", is right if any is; here it is wrong.
    - the beginning ``Best option:(`` is not put into the mouth of the model.
    - lmms-eval finds any single letter A to E in the reply, in any case (so the article "a" is one), and leaves empty
      replies out of its averages.

    The authors' ``Avg`` is over questions (micro). It is that over tasks (macro) while every task has 200 questions;
    both are given. Tasks of which only a part of each video is meant have a window. A folder of frames plays one frame
    a second here, but holds three a second, so its window is three times the published one.
    """

    title: ClassVar[str] = "MVBench"
    origin: ClassVar[str] = (
        "arXiv 2311.17005; github.com/OpenGVLab/Ask-Anything (MIT). Prompt and check_ans of video_chat2/mvbench.ipynb; "
        "empty replies and those with several letters count as wrong."
    )
    layout: ClassVar[str] = (
        "json/action_sequence.json and the files of the other 19 tasks (huggingface.co/datasets/OpenGVLab/MVBench)\n"
        "video/star/Charades_v1_480/*.mp4, video/tvqa/frames_fps3_hq/*/00001.jpg, ... (its archives, unpacked in "
        "video/)\n"
        "  or star/Charades_segment/*.mp4, tvqa/video_fps3_hq_segment/*.mp4, ... (its branch 'video': clips are shown "
        "whole)\n"
        "video/data0613/... (its archive of replaced videos)\n"
        "video/nturgbd/*.avi or nturgbd_convert/*.mp4 (NTU RGB+D, from its owners)"
    )
    folder_name: ClassVar[str] = "MVBench"

    def read(self) -> Listing:
        files = choose_layout(self.folder, [f"json/{stem(task)}.json" for task in TASKS])
        questions: list[Question] = []
        problems: list[Problem] = []
        for task, rows in zip(TASKS, read_files(*files), strict=True):
            made = listing(rows, partial(self._question, task=task))
            questions += made.questions
            problems += made.problems
        return Listing(questions, problems)

    def _question(self, row: Row, task: str) -> Question:
        source, name = TASKS[task], row.path("video")
        options, truth = row.words("candidates", least=2), row.word("answer")
        if truth not in options:
            raise RowError(f"answer: must be one of the candidates, not {truth!r}")
        whole = below(ROOTS, f"{source.whole}/{name}")
        clips = below(ROOTS, f"{source.clips}/{name}") if source.clips else []
        video = first_there(self.folder, *whole, *clips)
        window = None
        if source.windowed and video in whole:
            start, end = row.number("start"), row.number("end")
            if not 0 <= start < end:
                raise RowError(
                    f"start, end: must be a window of the video, not {start} to {end} s (later copies mend it)"
                )
            rate = FRAME_RATE if source.frames else 1.0
            window = (start * rate, end * rate)
        return Question(
            id=f"{stem(task)}/{row.key}",
            video=video,
            text=row.text("question"),
            options=options,
            answer=letter(max(i for i, option in enumerate(options) if option == truth)),
            categories={"task": task},
            window=window,
        )

    def prompt(self, question: Question, times: Sequence[float]) -> str:
        asked = [f"Question: {question.text}", "Options:", *lettered(question.options, "({letter}) {option}")]
        return SYSTEM + "\n".join(asked).rstrip() + INSTRUCTION

    def judge(self, question: Question, reply: str) -> Judgement:
        word = f"({reply.strip().split(chr(10))[0]}".lower().split(" ")[0]
        bare = word.replace(".", "")
        offered = [letter(i) for i in range(len(question.options))]
        hits = [a for a in offered if bare in (f"({a.lower()}", f"({a.lower()})") or f"({a.lower()})" in word]
        found = hits[0] if len(hits) == 1 else None
        return Judgement(float(found == question.answer), found)

    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        if not judged:
            return []
        return [micro("Avg (micro)", judged, headline=True), macro("Avg (macro over tasks)", judged, "task")]

    def submission(self, judged: Sequence[Judged]) -> dict[str, bytes]:
        """``upload_leaderboard.json`` as the authors' notebook writes it: percent of every task, and their ``Avg``."""
        groups = {task: [j for j in judged if j.question.categories["task"] == task] for task in TASKS} | {
            "Avg": judged
        }
        shares = {name: sum(j.judgement.score for j in g) / len(g) * 100 for name, g in groups.items() if g}
        return {"upload_leaderboard.json": as_json(shares)}

    @classmethod
    def miniature(cls, folder: Path) -> None:
        (folder / "json").mkdir()
        for n, (task, source) in enumerate(TASKS.items()):
            row: dict[str, Any] = {"video": f"{n}" if source.frames else f"{n}.mp4", "question": "What is done first?"}
            row |= {"candidates": ["Opening it.", "Closing it.", "Nothing."], "answer": "Closing it."}
            if source.windowed:
                row |= {"start": 2.0, "end": 10.5, "accurate_start": 3.0, "accurate_end": 9.5}
            (folder / "json" / f"{stem(task)}.json").write_text(json.dumps([row]), encoding="utf-8")

    def truth(self, question: Question) -> str:
        return lettered(question.options, "({letter}) {option}")[ord(question.answer) - ord("A")]


def stem(task: str) -> str:
    """Name of a task's file."""
    return task.lower().replace(" ", "_").replace("-", "_")
