"""LVBench: four options, videos of about an hour and more."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vxl_lightning.evaluation.averages import micro
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Listing, Problem, Question
from vxl_lightning.evaluation.letters import option_of
from vxl_lightning.evaluation.places import first_there
from vxl_lightning.evaluation.rows import Row, RowError, as_json, choose_layout, listing, read_files

LETTERS = "ABCD"

TYPES = {
    "entity recognition": "ER",
    "event understanding": "EU",
    "key information retrieval": "KIR",
    "temporal grounding": "TG",
    "reasoning": "Rea",
    "summarization": "Sum",
}
"""Capability, of which a question may need several -> its name in the papers and on the leaderboard."""

ENDS = (".mp4", ".mkv", ".webm")


def polished(reply: str) -> str:
    """The character that the authors' rule takes for the answer, or an empty text.

    Of what stands before the first ``)``, what follows its first ``(``, if it has one, and of that the first character.
    """
    text = reply.strip().partition(")")[0].strip()
    if "(" in text:
        text = text.split("(")[1].strip()
    return text[:1].strip()


class LVBench(Benchmark):
    """LVBench (arXiv 2406.08035): 1,549 questions of 103 videos, each of one or more of six capabilities.

    A reply is read by the authors' rule: the first character after the first bracket that opens, or of the reply.
    "(B)", "B. Blue" and "The answer is (B)." are read; "The answer is B" is not, and a lower-case letter neither. A
    question counts for each of its capabilities. Where ours differs: a question without a reply is wrong, while their
    script leaves it out. lmms-eval reads replies by another rule (`letters.ranked_letter`) and gives the average alone.

    The authors publish no prompt; the question is published with its options in it, and is asked as it stands with the
    instruction of lmms-eval after it.
    """

    title = "LVBench"
    origin: ClassVar[str] = (
        "arXiv 2406.08035; THUDM/LVBench (lvbench/utils/answer_util.py: polish_answer; "
        "lvbench/metrics/compute_accuracy.py; scripts/test_acc.py: result.json); annotations CC-BY-NC-SA-4.0"
    )
    layout = (
        "video_info.meta.jsonl    as in the dataset THUDM/LVBench; or data/video_info.meta.jsonl\n"
        "videos/<key>.mp4         or .mkv or .webm, or in all_videos/; the key is that of the video's line"
    )
    folder_name = "lvbench"

    def read(self) -> Listing:
        name = "video_info.meta.jsonl"
        (videos,) = read_files(*choose_layout(self.folder, [name], [f"data/{name}"]))
        questions: list[Row] = []
        about: dict[str, Row] = {}
        problems = []
        for video in videos:
            of_video: list[Row] = []
            try:
                of_video = video.rows("qa")
                video.path("key")
                video.text("type")
            except RowError as error:
                problems.append(Problem(video.where, str(error), len(of_video) or 1))
                continue
            questions.extend(of_video)
            about.update({row.where: video for row in of_video})
        return listing(questions, lambda row: self._question(row, about[row.where]), problems)

    def _question(self, row: Row, video: Row) -> Question:
        published = row.text("question")
        text, *lines = published.split("\n")
        starts = [i for i, line in enumerate(lines) if line.lstrip()[:3] in {f"({c})" for c in LETTERS}]
        if [lines[i].lstrip()[1] for i in starts] != list(LETTERS):
            raise RowError(f"question: must have the options (A) to (D), one a line after the question: {published!r}")
        ends = [*starts[1:], len(lines)]
        options = ["\n".join(lines[a:b]).strip() for a, b in zip(starts, ends, strict=True)]
        if bare := [o[1] for o in options if not o[3:].strip()]:
            raise RowError(f"question: option {', '.join(bare)} is empty: {published!r}")
        types = row.texts("question_type", least=1)
        if unknown := [t for t in types if t not in TYPES]:
            raise RowError(f"question_type: must be of {', '.join(TYPES)}, not {', '.join(unknown)}")
        key = video.path("key")
        return Question(
            id=row.word("uid"),
            video=first_there(self.folder, *(f"{at}/{key}{end}" for at in ("videos", "all_videos") for end in ENDS)),
            text="\n".join([text, *lines[: starts[0]]]).strip(),
            answer=row.one_of("answer", LETTERS),
            options=tuple(option_of(option, i) for i, option in enumerate(options)),
            categories={"video_type": video.text("type"), "question_types": " + ".join(sorted(types))},
            meta={"question": published, "question_types": list(types)},
        )

    def prompt(self, question: Question, times: Sequence[float]) -> str:
        return f"{question.meta['question']}\nAnswer the question with the option letter"

    def judge(self, question: Question, reply: str) -> Judgement:
        found = polished(reply)
        parsed = found if found and found in LETTERS else None
        return Judgement(float(parsed == question.answer), parsed)

    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        made = [micro("Overall", judged, headline=True)]
        for kind, short in TYPES.items():
            if of_kind := [j for j in judged if kind in j.question.meta["question_types"]]:
                made.append(micro(f"{short} ({kind})", of_kind))
        return made

    def submission(self, judged: Sequence[Judged]) -> dict[str, bytes]:
        result = {f.name.partition(" ")[0]: f.value for f in self.figures(judged)}
        answers = {j.question.id: j.judgement.parsed or "" for j in judged}
        return {"result.json": as_json(result), "answers.json": as_json(answers)}

    def truth(self, question: Question) -> str:
        return f"({question.answer})"

    @classmethod
    def miniature(cls, folder: Path) -> None:
        kinds = list(TYPES)
        lines = []
        for v, video_type in enumerate(("sport", "documentary")):
            rows = [
                {
                    "uid": str(10 * v + i),
                    "question": f"Which étoile is {i}?\n" + "\n".join(f"({c}) {c * 2} 颗 {i}" for c in LETTERS),
                    "answer": LETTERS[(v + i) % 4],
                    "question_type": [kinds[i], kinds[(i + 1) % 6]][: 1 + i % 2],
                    "time_reference": "00:15-00:19",
                }
                for i in range(6)
            ]
            info = {"duration_minutes": 60, "fps": 25.0, "resolution": {"width": 640, "height": 360}}
            lines.append({"key": f"invented_{v}", "type": video_type, "qa": rows, "video_info": info})
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "video_info.meta.jsonl").write_text(text, encoding="utf-8")
