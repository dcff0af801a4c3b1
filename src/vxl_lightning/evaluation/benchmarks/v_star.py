"""V-STaR: what happens in a video, when, and where in the picture, asked in two orders."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vxl_lightning.evaluation.averages import macro, micro
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Listing, Problem, Question
from vxl_lightning.evaluation.benchmarks.v_star_rows import COORDINATES, PARTS, length_of, questions_of
from vxl_lightning.evaluation.boxes import find_boxes, frame_iou
from vxl_lightning.evaluation.phrases import declines, holds_phrase, words
from vxl_lightning.evaluation.rows import RowError, as_json, choose_layout, read_files
from vxl_lightning.evaluation.spans import find_span, temporal_iou

ANNOTATIONS = "V_STaR_test.json"
SUBMISSION = "vxl_v_star_answers.json"

RECALL_AT = (0.3, 0.5, 0.7)
PRECISION_AT = (0.1, 0.3, 0.5, 0.7, 0.9)
JOINT = {"what": 1.0, "when": 0.3, "where": 0.1}
"""What each aspect must score for a row to count as answered in several at once."""

RIGHT = 2
"""Least rating, of 0 to 3, that is right."""
LGM_CEILING = 1 - 1e-6
"""Averages are taken to be no higher in LGM, which is infinite at 1; it is never above 13.8."""

_NUMBER = re.compile(r"\b\d+(?:\.\d+)?\b")


class VStar(Benchmark):
    """V-STaR (Cheng et al. 2025, arXiv 2503.11495): five questions a row, each asked by itself.

    *When* is scored by the overlap of spans, *where* by the overlap of boxes in every annotated frame, as the authors'
    ``eval.py`` does. ``m_tIoU`` and ``m_vIoU`` are means over rows, ``R1@x`` the share of rows whose span overlaps by x
    or more, ``AP@x`` the mean over rows of the share of their boxes that do. Of a chain, AM is the mean of the
    accuracy, m_tIoU and m_vIoU, and LGM the mean of ``-ln(1 - x)`` of them; mAM and mLGM are means over both chains.

    As the authors ask it, later questions are given what earlier ones ask for: *where* of chain 1 the true seconds,
    *where* of chain 2 the number of boxes, *when* of chain 2 the true boxes. The prompts are theirs without the
    indentation of their source.

    A reply to *when* that holds exactly two numbers is that span, as in the authors' script; where there are more or
    fewer, which they take for no answer, `spans.find_span` looks for clock times, units and JSON. Seconds of boxes must
    be written as annotated; a published ``3.0`` is also found under ``3``, which the prompt asks for.

    Where this differs from the authors:

    - *What* is judged by rule (`rate`), not by Qwen2.5-72B: right is a reply that holds the whole answer, in its order,
      but for case, punctuation, articles and number words. It misses what is said in other words, so this accuracy is
      not comparable with published ones, nor are AM and LGM. Subclasses may override `rate` to ask a judge; or give
      `submission`, the file that the authors' ``eval.py`` reads, to theirs.
    - A row whose *what* was not answered counts as wrong in *what* and as it is in *when* and *where*. There it is left
      out of every mean, but not of the overall accuracy.
    - LGM is infinite where an average is 1; here averages count as at most 1 - 1e-6.
    - Their baselines of random spans and boxes are left out (the boxes are always scored 0, by a mistake).
    """

    title: ClassVar[str] = "V-STaR"
    origin: ClassVar[str] = (
        "arXiv 2503.11495, github.com/V-STaR-Bench/V-STaR (no licence file); annotations CC-BY-NC-SA-4.0. Follows "
        "eval.py and the parsing of inference_demo.py, with 'what' judged by rule instead of by Qwen2.5-72B-Instruct"
    )
    layout: ClassVar[str] = "V_STaR_test.json\nvideos/{vid}.mp4 (or in any folder below, as unpacked)"
    folder_name: ClassVar[str] = "V-STaR"
    longest_reply: ClassVar[int] = 2048  # boxes for every second, as the authors allow

    def read(self) -> Listing:
        (path,) = choose_layout(self.folder, [ANNOTATIONS])
        (rows,) = read_files(path)
        videos = {p.name: p.relative_to(self.folder).as_posix() for p in sorted(self.folder.rglob("*.mp4"))}
        questions: list[Question] = []
        problems: list[Problem] = []
        for row in rows:
            try:
                questions += questions_of(row, videos)
            except RowError as error:
                problems.append(Problem(row.where, str(error), len(PARTS)))
        return Listing(questions, problems)

    def prompt(self, question: Question, times: Sequence[float]) -> str:
        row, text = question.meta["row"], question.text
        length = f"This video is {length_of(row)} seconds long"
        boxes = [[box[c] for c in COORDINATES] for box in row["bboxes"]]
        ask = "Please answer the question about the video"
        form = "with a series of bounding boxes in [x1, y1, x2, y2] format."
        match question.meta["part"]:
            case "what":
                return (
                    f"Answer the question about the video: {text} \n "
                    "(If the answer is a person, you don't need to identify the person.)"
                )
            case "when-1":
                return (
                    f"{length}. Answer the question about the video: {text} \n "
                    "Output the start and end moment timestamps."
                )
            case "when-2":
                return (
                    f"{length} with a resolution of {row['width']}x{row['height']} (width x height). Answer the "
                    f"question about the video: {text} \n There are {len(boxes)} bounding boxes of the key object "
                    f"related to the question in the video without knowing the time, which are:{boxes}. Output the "
                    "start and end moment timestamps."
                )
            case "where-1":
                begin, end = row["timestamps"]
                seconds = list(range(math.ceil(begin), math.floor(end) + 1))
                first = seconds[0] if seconds else math.ceil(begin)
                return (
                    f"{ask}: {text} {form} \n\nFor each whole second within the time range {seconds} provided "
                    "(inclusive of the boundaries), output a series of bounding boxes of the object in JSON format. "
                    "The keys should be the whole seconds (as strings), and the values should be the box in "
                    f'[x1, y1, x2, y2] format.\nExample output: {{"{first}": [x1, y1, x2, y2],...}}'
                )
        count = len(boxes)
        return (
            f"{ask}: {text} {form} \n\nFor each whole second that may related to the question, output a series of "
            f"bounding boxes of the object in JSON format. You only need to output {count} bbox(es). You need to "
            "determine which frame is related to the question, and you don't need to output the bbox for the frames "
            "not related to the question.\nThe keys should be the whole seconds (as strings), and the values should be "
            "the bounding box in [x0,y0,x1,y1] format. \n\n Example output:\n"
            f'{{"0": [x0,y0,x1,y1], "1":..., ..., "{count}":...}} '
            f"(if the frames at 0~{count} second are related to the questions)"
        )

    def judge(self, question: Question, reply: str) -> Judgement:
        match question.categories["aspect"]:
            case "what":
                rating = self.rate(question, reply)
                said = rating >= RIGHT or not declines(reply)
                return Judgement(float(rating >= RIGHT), reply.strip() if said else None, {"rating": float(rating)})
            case "when":
                numbers = [float(n) for n in _NUMBER.findall(reply)]
                span = (numbers[0], numbers[1]) if len(numbers) == 2 else find_span(reply)
                if span is None or not all(map(math.isfinite, span)):
                    return Judgement(0.0, None)
                begin, end = json.loads(question.answer)
                return Judgement(temporal_iou((begin, end), span), json.dumps(span))
        found = find_boxes(reply)
        if found is None:
            return Judgement(0.0, None)
        overlaps = [frame_iou([box[c] for c in COORDINATES], _at(found, box)) for box in json.loads(question.answer)]
        precision = {f"AP@{x}": float(np.mean([o >= x for o in overlaps])) for x in PRECISION_AT}
        return Judgement(float(np.mean(overlaps)), json.dumps(found, ensure_ascii=False), precision)

    def rate(self, question: Question, reply: str) -> int:
        """How well a reply to *what* means the same as the answer, from 0 to 3, as the authors' judge rates it; 2 and 3
        are right. By rule, 3 where the words are the same, and 2 where the answer's words are in it, side by side."""
        if words(reply) == words(question.answer):
            return 3
        return 2 if holds_phrase(reply, question.answer) else 0

    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        of = {p.name: [j for j in judged if j.question.meta["part"] == p.name] for p in PARTS}
        made = [micro("Acc (what, by rule)", of["what"])] if of["what"] else []
        chains = []
        for chain in ("1", "2"):
            when, where = of[f"when-{chain}"], of[f"where-{chain}"]
            if when:
                made += [micro(f"R1@{x} (chain {chain})", when, value=_at_least(x)) for x in RECALL_AT]
                made.append(micro(f"m_tIoU (chain {chain})", when, unit="iou"))
            if where:
                made += [micro(f"AP@{x} (chain {chain})", where, value=_part(f"AP@{x}")) for x in PRECISION_AT]
                made.append(micro(f"m_vIoU (chain {chain})", where, unit="iou"))
            if of["what"] and when and where:
                chains.append([*of["what"], *when, *where])
                made += [
                    _am(f"AM (chain {chain})", chains[-1]),
                    _lgm(f"LGM (chain {chain})", chains[-1]),
                    *_joint(chain, of["what"], when, where),
                ]
        if len(chains) == 2:
            am, lgm = (_mean(f.value for f in made if f.name.startswith(name)) for name in ("AM ", "LGM "))
            both = [j for chain in chains for j in chain]
            made.append(replace(_am("mAM", both), value=am, headline=True))
            made.append(Figure("mLGM", lgm, float("nan"), _bundles(both), "log", headline=True))
        elif made:
            made[0] = replace(made[0], headline=True)
        return made

    def submission(self, judged: Sequence[Judged]) -> dict[str, bytes]:
        """What the authors' ``eval.py`` reads: every row with what was found in the replies to it."""
        rows: dict[str, dict[str, Any]] = {}
        parts = {p.name: p for p in PARTS}
        for j in judged:
            row = rows.setdefault(j.question.bundle, dict(j.question.meta["row"]))
            part = parts[j.question.meta["part"]]
            if not part.raw:
                row[part.answer] = j.reply
                continue
            nothing: list[float] | None = [] if part.aspect == "when" else None
            row[part.raw] = j.reply
            row[part.answer] = nothing if j.judgement.parsed is None else json.loads(j.judgement.parsed)
        return {SUBMISSION: as_json([rows[key] for key in sorted(rows, key=lambda k: (len(k), k))])} if rows else {}

    def truth(self, question: Question) -> str:
        match question.categories["aspect"]:
            case "what":
                return f"{question.answer}."
            case "when":
                begin, end = json.loads(question.answer)
                return f"From {begin} to {end} seconds."
        seconds: dict[str, list[list[float]]] = {}
        for box in json.loads(question.answer):
            seconds.setdefault(str(box["timestamp"]), []).append([box[c] for c in COORDINATES])
        return f"```json\n{json.dumps(seconds)}\n```"

    @classmethod
    def miniature(cls, folder: Path) -> None:
        rows = []
        for i, (thing, begin) in enumerate((("a red kite", 3), ("two dogs", 61), ("yes", 12))):
            boxes = [
                {"timestamp": t, "frame_index": 25 * t, "xmin": 10 * t, "ymin": 20, "xmax": 10 * t + 50, "ymax": 90}
                for t in range(begin, begin + 3)
            ]
            rows.append(
                {
                    "vid": f"clip_{i % 2}", "domain": ("Sports", "Animals", "Sports")[i], "fps": 25.0, "width": 1280,
                    "height": 720, "frame_count": (1000, 2000, 5000)[i], "question": "What is seen?", "chain": "",
                    "object": thing, "answer": thing, "temporal_question": "When is it seen?",
                    "timestamps": [begin - 0.5, begin + 2.5], "spatial_question": "Where is it?",
                    "spatial_question_2": "Where is what is seen?", "bboxes": boxes,
                }
            )  # fmt: skip
        (folder / ANNOTATIONS).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _at(found: Mapping[str, Any], box: Mapping[str, float]) -> Any:
    """What a reply gives for the second of an annotated box."""
    second = box["timestamp"]
    whole = str(int(second)) if float(second).is_integer() else ""
    return found.get(str(second), found.get(whole))


def _at_least(least: float) -> Callable[[Judged], float]:
    return lambda j: float(j.judgement.score >= least)


def _part(name: str) -> Callable[[Judged], float]:
    return lambda j: j.judgement.parts.get(name, 0.0)


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))


def _bundles(judged: Sequence[Judged]) -> int:
    return len({j.question.bundle for j in judged})


def _am(name: str, judged: Sequence[Judged]) -> Figure:
    return replace(macro(name, judged, "aspect", unit="mean"), n=_bundles(judged))


def _lgm(name: str, judged: Sequence[Judged]) -> Figure:
    """Given without a standard error."""
    means = [_mean(j.judgement.score for j in judged if j.question.categories["aspect"] == a) for a in JOINT]
    value = -float(np.mean([math.log1p(-min(m, LGM_CEILING)) for m in means]))
    return Figure(name, value, float("nan"), _bundles(judged), "log")


def _joint(chain: str, what: Sequence[Judged], when: Sequence[Judged], where: Sequence[Judged]) -> Iterator[Figure]:
    """Shares of rows that are answered in several aspects at once: right, a tIoU of 0.3, a vIoU of 0.1."""
    rows: dict[str, dict[str, bool]] = {}
    for j in (*what, *when, *where):
        aspect = j.question.categories["aspect"]
        rows.setdefault(j.question.bundle, {})[aspect] = j.judgement.score >= JOINT[aspect]
    whole = [j for j in what if len(rows[j.question.bundle]) == len(JOINT)]
    names = {"what": "VQA", "when": "Temp", "where": "Spat"}
    for together in (("what", "when"), ("what", "where"), ("when", "where"), ("what", "when", "where")):

        def all_right(j: Judged, together: tuple[str, ...] = together) -> float:
            return float(all(rows[j.question.bundle][aspect] for aspect in together))

        if whole:
            yield micro(f"{' & '.join(names[a] for a in together)} (chain {chain})", whole, value=all_right)
