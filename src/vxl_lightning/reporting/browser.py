"""The error browser's data: every question with every row's reply, as a page embeds it.

The page is ``browser.html.jinja``. It holds the questions as one JSON value and draws the few that are looked at.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from vxl_lightning.reporting.plots import label
from vxl_lightning.reporting.thumbnails import Thumbnails

Records = Sequence[Mapping[str, Any]]

FRAMES = 6
"""Most frames of a picture of what was kept."""
PICTURES_BYTES = 10 << 20
"""Most bytes of all pictures in a page."""


@dataclass(frozen=True)
class Videos:
    """The videos that questions are about, where they are at hand.

    Attributes:
        folders: benchmark -> folder that its videos' paths are relative to; pictures are decoded from there.
        durations: path of a video -> its seconds.
        pictures: number of questions that went wrong whose kept frames are shown, over all benchmarks.
    """

    folders: Mapping[str, Path] = field(default_factory=dict)
    durations: Mapping[Path, float] = field(default_factory=dict)
    pictures: int = 0


def evaluation_browser(records: Records, videos: Videos) -> dict[str, Any]:
    """The data of an evaluation's ``questions.parquet``.

    Returns:
        ``rows`` and ``benchmarks``, their names; ``kept``, lists of seconds, and ``pictures``, what some of them look
        like, by index; ``questions``, each with ``replies``, one a row or None: text, what it was read as or None,
        score, index of its kept frames or None, and why it failed.

    Raises:
        ValueError: a score that is not finite.
    """
    data = _browser(
        {**r, "truth": r["answer"], "categories": json.loads(r["categories"]), "kept": r["kept"] or ()} for r in records
    )
    for question in data["questions"]:
        path = _path(data, question, videos)
        question["duration"] = videos.durations.get(path) if path else None
    data["pictures"] = _pictures(data, videos)
    data["kept"] = [[round(t, 2) for t in times] for times in data["kept"]]
    return data


def ablation_browser(predictions: Records) -> dict[str, Any]:
    """The data of an ablation's ``predictions.parquet``: its tasks are the categories, every seed is a row."""
    several = len({p["seed"] for p in predictions}) > 1
    return _browser(
        {
            "row": label(dict(p)) + (f" · seed {p['seed']}" if several else ""),
            "benchmark": "",
            "id": p["question_id"],
            "video": p["video"],
            "question": p["question"],
            "options": p["choices"],
            "truth": p["answer"],
            "categories": {"task": p["task"]},
            "reply": p["prediction"],
            "parsed": p["prediction"],
            "score": p["correct"],
            "kept": (),
            "failed": "",
        }
        for p in predictions
    )


def _browser(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    rows: dict[str, int] = {}
    benchmarks: dict[str, int] = {}
    kept: dict[tuple[float, ...], int] = {}  # most rows keep the same frames for all questions of a video
    questions: dict[tuple[str, str], dict[str, Any]] = {}
    for r in records:
        rows.setdefault(r["row"], len(rows))
        question = questions.setdefault(
            (r["benchmark"], r["id"]),
            {
                "benchmark": benchmarks.setdefault(r["benchmark"], len(benchmarks)),
                **{name: r[name] for name in ("id", "video", "question", "truth", "categories")},
                "options": list(r["options"]),
                "duration": None,
                "replies": {},
            },
        )
        times = tuple(sorted(r["kept"]))
        index = kept.setdefault(times, len(kept)) if times else None
        score = round(float(r["score"]), 4)
        if not math.isfinite(score):
            raise ValueError(f"question {r['id']} of row {r['row']} has score {score}; a score is a number")
        question["replies"][r["row"]] = [r["reply"], r["parsed"], score, index, r["failed"]]
    for question in questions.values():
        question["replies"] = [question["replies"].get(row) for row in rows]
    return {
        "rows": list(rows),
        "benchmarks": list(benchmarks),
        "kept": [list(times) for times in kept],
        "pictures": {},
        "questions": list(questions.values()),
    }


def _path(data: Mapping[str, Any], question: Mapping[str, Any], videos: Videos) -> Path | None:
    folder = videos.folders.get(data["benchmarks"][question["benchmark"]])
    return folder and folder / question["video"]


def _pictures(data: Mapping[str, Any], videos: Videos) -> dict[str, dict[str, Any]]:
    """Frames that were kept for questions that went wrong in some row, the benchmarks by turns.

    Returns:
        Benchmark's index, index of ``kept`` and the video, joined by spaces as the page joins them too, to ``times``
        and ``picture``, a WebP file in base64.
    """
    found: dict[str, dict[str, Any]] = {}
    room = PICTURES_BYTES
    for question in _wrong(data["questions"], len(data["benchmarks"]))[: videos.pictures]:
        path = _path(data, question, videos)
        if path is None:
            continue
        path = path.resolve()
        thumbnails = Thumbnails(path.parent, {})
        for reply in question["replies"]:
            if reply is None or reply[3] is None:
                continue
            name = f"{question['benchmark']} {reply[3]} {question['video']}"
            if name in found:
                continue
            times = _spread(data["kept"][reply[3]])
            # Seconds are kept to a thousandth, which may be just before the frame: a thousandth later it is on screen.
            picture = thumbnails.strip(path.name, [t + 1e-3 for t in times]).picture
            room -= len(picture)
            if room < 0:
                return found
            if picture:
                found[name] = {"times": [round(t, 2) for t in times], "picture": picture}
    return found


def _wrong(questions: Sequence[dict[str, Any]], benchmarks: int) -> list[dict[str, Any]]:
    """Questions that were seen and went wrong in some row: the first of every benchmark, then the second of each..."""
    told = (q for q in questions if q["truth"])  # nobody knows what is wrong where the answer is not published
    wrong = [q for q in told if any(r and not r[4] and r[2] < 1 for r in q["replies"])]
    by_benchmark = [[q for q in wrong if q["benchmark"] == b] for b in range(benchmarks)]
    return [q for turn in zip_longest(*by_benchmark) for q in turn if q is not None]


def _spread(times: Sequence[float]) -> list[float]:
    """At most `FRAMES` of ``times``, evenly, the first and the last among them."""
    if len(times) <= FRAMES:
        return list(times)
    return [times[round(i * (len(times) - 1) / (FRAMES - 1))] for i in range(FRAMES)]
