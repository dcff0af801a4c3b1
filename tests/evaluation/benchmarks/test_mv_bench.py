import json
from pathlib import Path
from typing import Any

import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Judged, Question
from vxl_lightning.evaluation.benchmarks.mv_bench import TASKS, MVBench
from vxl_lightning.testing import parametrize_laws


@parametrize_laws("benchmark", MVBench)
def test_laws(law: Any) -> None:
    law()


@pytest.fixture
def bench(tmp_path: Path) -> MVBench:
    MVBench.miniature(tmp_path)
    return MVBench(MVBench.Config(), tmp_path)


def of_task(bench: MVBench, task: str) -> Question:
    return next(q for q in bench.read().questions if q.categories["task"] == task)


def touch(bench: MVBench, path: str) -> None:
    (bench.folder / path).parent.mkdir(parents=True, exist_ok=True)
    (bench.folder / path).touch()


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("B", "B"), ("b", "B"), ("B.", "B"), ("B)", "B"), ("(B)", "B"), ("(b)", "B"), ("(B) Closing it.", "B"),
        ("B) Closing it.", "B"), ("B. Closing it.", "B"), (" B\nbecause", "B"), ("(B).", "B"), ("((B))", "B"),
        ("\n\n(B) x", "B"), ("B (A)", "B"), ("(B)(B)", "B"), ("(B),", "B"), ("A", "A"), ("A dog", "A"),
        ("(A) or (B)", "A"), ("B..", "B"),
        ("(A)(B)", None), ("(B", None), ("B,", None), ("**B**", None), ("The answer is B", None), ("Closing it.", None),
        ("D", None), ("(D) Nothing", None), ("", None), (".", None), ("...", None), (". B", None), ("B🙂", None),
        ("Ｂ", None), ("答案是(B)", "B"), ("AB", None),
    ],
)  # fmt: skip
def test_the_first_word_is_read_as_by_the_authors(bench: MVBench, reply: str, found: str | None) -> None:
    question = of_task(bench, "Moving Count")
    assert bench.judge(question, reply).parsed == found
    assert bench.judge(question, reply).score == (found == "B")


def test_the_prompt_is_the_authors(bench: MVBench) -> None:
    assert bench.prompt(of_task(bench, "Moving Count"), ()).split("\n") == [
        "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
        "objects, and the action and pose of persons. Based on your observations, select the best option that "
        "accurately addresses the question.",
        "Question: What is done first?", "Options:", "(A) Opening it.", "(B) Closing it.", "(C) Nothing.",
        "Only give the best option.",
    ]  # fmt: skip


def test_there_are_twenty_tasks_and_five_have_windows(bench: MVBench) -> None:
    questions = bench.read().questions
    assert [q.categories["task"] for q in questions] == list(TASKS) and len(TASKS) == 20
    assert {q.categories["task"]: q.window for q in questions if q.window} == {
        "Action Sequence": (2.0, 10.5),
        "Action Prediction": (2.0, 10.5),
        "Object Interaction": (2.0, 10.5),
        "Action Localization": (2.0, 10.5),
        "Episodic Reasoning": (6.0, 31.5),  # a folder of frames, three a second, played one a second
    }
    assert of_task(bench, "Episodic Reasoning").video == "video/tvqa/frames_fps3_hq/18"


def test_clips_that_are_cut_are_shown_whole(bench: MVBench) -> None:
    touch(bench, "star/Charades_segment/0.mp4")
    found = of_task(bench, "Action Sequence")
    assert (found.video, found.window) == ("star/Charades_segment/0.mp4", None)


@pytest.mark.parametrize(
    "place", ["video/star/Charades_v1_480", "star/Charades_v1_480", "video/data0613/star/Charades_v1_480"]
)
def test_whole_videos_are_found_where_archives_put_them(bench: MVBench, place: str) -> None:
    touch(bench, f"{place}/0.mp4")
    found = of_task(bench, "Action Sequence")
    assert (found.video, found.window) == (f"{place}/0.mp4", (2.0, 10.5))


def test_averages_are_over_questions_and_over_tasks(bench: MVBench) -> None:
    path = bench.folder / "json" / "moving_count.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([rows[0] | {"video": f"v{i}.mp4"} for i in range(4)]))
    questions = bench.read().questions
    judged = [Judged(q, r, bench.judge(q, r)) for q in questions for r in ["A" if "moving_count" in q.id else "B"]]
    found = {f.name: (f.value, f.n) for f in bench.figures(judged)}
    assert found["Avg (micro)"] == (pytest.approx(19 / 23, abs=1e-15), 23)
    assert found["Avg (macro over tasks)"] == (pytest.approx(19 / 20, abs=1e-15), 23)
    shares = json.loads(bench.submission(judged)["upload_leaderboard.json"])
    assert list(shares) == [*TASKS, "Avg"]
    assert (shares["Moving Count"], shares["Action Count"]) == (0, 100)
    assert shares["Avg"] == pytest.approx(1900 / 23, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": "Dropping it."}, "answer: must be one of the candidates, not 'Dropping it.'"),
        ({"answer": None}, "answer: must be a text"),
        ({"candidates": ["Closing it."]}, "candidates: must be a list of 2 to 26 texts"),
        ({"candidates": {"A": "Closing it."}}, "candidates: must be a list"),
        ({"candidates": ["Closing it.", ""]}, "candidates[1]: must not be empty"),
        ({"video": "../0.mp4"}, "video: must be a path below"),
        ({"question": "\udc00"}, "not unicode"),
        ({"start": None}, "start: must be a number, not None"),
        ({"end": "late"}, "end: must be a number, not 'late'"),
        ({"start": 10.5}, "must be a window of the video, not 10.5 to 10.5 s"),
        ({"start": float("nan")}, "start: must be a number, not nan"),
    ],
)
def test_broken_rows_are_listed(bench: MVBench, change: dict[str, Any], reason: str) -> None:
    path = bench.folder / "json" / "action_sequence.json"
    row = json.loads(path.read_text())[0]
    path.write_text(json.dumps([row | change, row, "row"]))
    found = bench.read()
    assert [p.where for p in found.problems] == ["action_sequence.json[0]", "action_sequence.json[2]"]
    assert reason in found.problems[0].reason
    assert found.questions[0].id == "action_sequence/1"


def test_counts_may_be_numbers(bench: MVBench) -> None:
    path = bench.folder / "json" / "action_count.json"
    path.write_text(json.dumps([{"video": "1.mp4", "question": "How many?", "candidates": [3, 2, 4], "answer": 2}]))
    question = of_task(bench, "Action Count")
    assert (question.options, question.answer) == (("3", "2", "4"), "B")


def test_missing_tasks_are_named(bench: MVBench) -> None:
    (bench.folder / "json" / "fine_grained_pose.json").unlink()
    with pytest.raises(UserError, match=r"json/fine_grained_pose\.json are missing"):
        bench.read()
