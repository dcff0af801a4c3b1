"""V-STaR: laws, parsing and figures pinned by hand, rows that are wrong, and what its authors' scorer reads."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Judged, Question
from vxl_lightning.evaluation.benchmarks.v_star import VStar
from vxl_lightning.testing import parametrize_laws


@parametrize_laws("benchmark", VStar)
def test_v_star_keeps_every_law(law: Any) -> None:
    law()


def row(**changes: Any) -> dict[str, Any]:
    """A row as published: seen from 2 to 6 seconds, boxes of 100 by 100 at 2 and 4."""
    boxes = [
        {"timestamp": t, "frame_index": 25 * t, "xmin": 100, "ymin": 100, "xmax": 200, "ymax": 200} for t in (2, 4)
    ]
    return {
        "vid": "a", "domain": "Sports", "fps": 25.0, "width": 640, "height": 360, "frame_count": 1510,
        "question": "What does the girl hold?", "chain": "", "object": "kite", "answer": "a red kite",
        "temporal_question": "When does she hold it?", "timestamps": [2.0, 6.0],
        "spatial_question": "Where is it?", "spatial_question_2": "Where is what she holds?", "bboxes": boxes,
    } | changes  # fmt: skip


def bench(folder: Path, *rows: Any) -> VStar:
    (folder / "V_STaR_test.json").write_text(json.dumps(list(rows)), encoding="utf-8")
    return VStar(VStar.Config(), folder)


def questions(folder: Path, *rows: Any) -> dict[str, Question]:
    return {q.id: q for q in bench(folder, *rows).read().questions}


def score(folder: Path, part: str, reply: str, **changes: Any) -> tuple[float, str | None]:
    made = bench(folder, row(**changes))
    found = made.judge({q.id: q for q in made.read().questions}[f"0-{part}"], reply)
    return found.score, found.parsed


def test_a_row_is_five_questions_of_one_bundle_in_two_chains(tmp_path: Path) -> None:
    found = questions(tmp_path, row())
    assert list(found) == ["0-what", "0-when-1", "0-where-1", "0-where-2", "0-when-2"]
    assert {q.bundle for q in found.values()} == {"0"}
    assert {q.video for q in found.values()} == {"videos/a.mp4"}
    assert found["0-where-2"].categories == {"aspect": "where", "chain": "2", "domain": "Sports", "duration": "Medium"}


def test_durations_are_the_authors_classes(tmp_path: Path) -> None:
    rows = [row(frame_count=f) for f in (1499, 1500, 4499, 4500)]
    found = questions(tmp_path, *rows)
    assert [found[f"{i}-what"].categories["duration"] for i in range(4)] == ["Short", "Medium", "Medium", "Long"]


def test_videos_are_found_in_whatever_folder_they_were_unpacked(tmp_path: Path) -> None:
    (tmp_path / "videos" / "part 1").mkdir(parents=True)
    (tmp_path / "videos" / "part 1" / "a.mp4").touch()
    made = bench(tmp_path, row(), row(vid="b"))
    found = made.read().questions
    assert found[0].video == "videos/part 1/a.mp4"
    assert [(p.where, p.questions) for p in made.missing(found)] == [("videos/b.mp4", 5)]


def test_prompts_are_the_authors(tmp_path: Path) -> None:
    made = bench(tmp_path, row())
    prompts = {q.id: made.prompt(q, []) for q in made.read().questions}
    assert prompts["0-what"] == (
        "Answer the question about the video: What does the girl hold? \n "
        "(If the answer is a person, you don't need to identify the person.)"
    )
    assert prompts["0-when-1"] == (
        "This video is 60.4 seconds long. Answer the question about the video: When does she hold it? \n "
        "Output the start and end moment timestamps."
    )
    assert "resolution of 640x360 (width x height)" in prompts["0-when-2"]
    assert "There are 2 bounding boxes" in prompts["0-when-2"]
    assert "which are:[[100, 100, 200, 200], [100, 100, 200, 200]]. Output" in prompts["0-when-2"]
    assert "within the time range [2, 3, 4, 5, 6] provided" in prompts["0-where-1"]
    assert prompts["0-where-1"].endswith('Example output: {"2": [x1, y1, x2, y2],...}')
    assert "You only need to output 2 bbox(es)." in prompts["0-where-2"]
    assert "Where is what she holds? with a series" in prompts["0-where-2"]


def test_a_span_between_two_seconds_can_be_asked_about(tmp_path: Path) -> None:
    made = bench(tmp_path, row(timestamps=[2.2, 2.8]))
    assert 'time range [] provided' in made.prompt(made.read().questions[2], [])  # fmt: skip


WHEN = {
    "From 2.0 to 6.0 seconds.": (1, "[2.0, 6.0]"),
    "[4, 8]": (2 / 6, "[4.0, 8.0]"),
    "2 to 4": (0.5, "[2.0, 4.0]"),
    "8 to 12": (0, "[8.0, 12.0]"),
    "6 to 2": (0, "[6.0, 2.0]"),
    "从 2 到 6 秒": (1, "[2.0, 6.0]"),
    "from -2 to 6": (1, "[2.0, 6.0]"),
    "2 6": (1, "[2.0, 6.0]"),
    # the authors find no two numbers in these
    "2.0s - 6.0s": (1, "[2.0, 6.0]"),
    "00:02-00:06": (1, "[2.0, 6.0]"),
    "The video is 60 seconds long; from 2 to 6.": (1, "[2.0, 6.0]"),
    '```json\n{"start": "00:02", "end": "00:06"}\n```': (1, "[2.0, 6.0]"),
    "2": (0, None),
    "at 2, then at 4, then at 6": (0, None),
    "": (0, None),
}


@pytest.mark.parametrize("reply", WHEN)
def test_when_is_the_overlap_of_spans(tmp_path: Path, reply: str) -> None:
    for part in ("when-1", "when-2"):
        assert score(tmp_path, part, reply) == (pytest.approx(WHEN[reply][0]), WHEN[reply][1])


BOX, HALF = [100, 100, 200, 200], [100, 100, 150, 200]
WHERE = {
    json.dumps({"2": BOX, "4": BOX}): 1,
    json.dumps({"2": BOX}): 0.5,
    json.dumps({"2": BOX, "4": HALF}): 0.75,
    json.dumps({"2": BOX, "4": BOX, "5": HALF}): 1,
    json.dumps({"2": [HALF, BOX], "4": BOX}): 1,
    json.dumps({"2": [BOX, [1, 2]], "4": BOX}): 1,
    json.dumps({"2": [BOX, ["a", 1, 2, 3]], "4": BOX}): 0.5,
    json.dumps({"2": [200, 200, 100, 100], "4": BOX}): 0.5,
    json.dumps({"2": [200, 0, 300, 100], "4": BOX}): 0.5,
    json.dumps({"2": [str(c) for c in BOX], "4": BOX}): 0.5,
    json.dumps({"2": {"box": BOX}, "4": None}): 0,
    json.dumps({"2": 7, "4": []}): 0,
    json.dumps({"2.0": BOX, "4": BOX}): 0.5,
    json.dumps([{"2": BOX}, {"4": BOX}]): 1,
    json.dumps([[2, BOX], [4, BOX]]): 1,
    json.dumps([["2", BOX], ["4", BOX]]): 1,
    str({"2": BOX, "4": BOX}): 1,
    "```json\n" + json.dumps({"2": BOX, "4": BOX}, indent=1) + "\n```": 1,
    "Here: " + json.dumps({"2": BOX, "4": BOX}) + " 🙂": 1,
    '{"2": [100, 100, 200, 200], "3": {"box": 7}, "4": [1': 0.5,
    '{"2": [NaN, 100, 200, 200], "4": [100, 100, 200, 200]}': 0.5,
    '{"2": [-1e999, 100, 200, 200], "4": [100, 100, 200, 200]}': 0.5,
}  # fmt: skip
NO_BOXES = (
    "", "I cannot tell.", '{"2": [100, 100, 200, 200], "4": [100, 100, 200}',
    "[]", "{}", "[{}]", json.dumps(BOX), '{"2": [100, 100, 200, 200], "4": [10',
    json.dumps([{"bbox_2d": BOX, "time": 2}]), "{" * 5000, "[" * 5000 + "]" * 5000, '{"nan": [1, 2, 3, 4]}',
)  # fmt: skip


@pytest.mark.parametrize("reply", WHERE)
def test_where_is_the_mean_overlap_over_annotated_frames(tmp_path: Path, reply: str) -> None:
    for part in ("where-1", "where-2"):
        found, parsed = score(tmp_path, part, reply)
        assert found == pytest.approx(WHERE[reply])
        assert parsed is not None


@pytest.mark.parametrize("reply", NO_BOXES)
def test_a_reply_without_boxes_by_second_is_unparsed(tmp_path: Path, reply: str) -> None:
    assert score(tmp_path, "where-1", reply) == (0, None)


def test_seconds_published_as_whole_floats_are_found_as_the_prompt_asks_for_them(tmp_path: Path) -> None:
    boxes = [{"timestamp": 2.0, "frame_index": 50, "xmin": 100, "ymin": 100, "xmax": 200, "ymax": 200}]
    for second in ("2", "2.0"):
        assert score(tmp_path, "where-1", json.dumps({second: BOX}), bboxes=boxes)[0] == 1


WHAT = {
    "a red kite": 3, "Red kite.": 3, "The RED kite!": 3, "It is a red kite.": 2, "I cannot be sure, but a red kite.": 2,
    "ｒｅｄ ｋｉｔｅ": 3, "a kite that is red": 0, "reddish kite": 0, "a blue kite": 0,
}  # fmt: skip


@pytest.mark.parametrize("reply", WHAT)
def test_what_is_right_where_the_answers_words_are_in_the_reply(tmp_path: Path, reply: str) -> None:
    assert score(tmp_path, "what", reply) == (float(WHAT[reply] >= 2), reply)


def test_yes_and_no_come_first_and_numbers_are_numbers(tmp_path: Path) -> None:
    assert score(tmp_path, "what", "No, there is none.", answer="no")[0] == 1
    assert score(tmp_path, "what", "Yes, there is no doubt.", answer="no")[0] == 0
    assert score(tmp_path, "what", "There are 2 dogs", answer="two dogs")[0] == 1


def test_replies_that_decline_are_unparsed(tmp_path: Path) -> None:
    for reply in ("I'm sorry, but I can't tell.", "Unclear", "🙂", "It is not possible to say", "unknown"):
        assert score(tmp_path, "what", reply) == (0, None)


def test_a_judge_may_take_the_place_of_the_rule(tmp_path: Path) -> None:
    class Judged3(VStar):
        def rate(self, question: Question, reply: str) -> int:
            return 2 if "flying toy" in reply else 0

    bench(tmp_path, row())
    made = Judged3(Judged3.Config(), tmp_path)
    assert made.judge(made.read().questions[0], "a flying toy").score == 1


def _judged(made: VStar, replies: dict[str, str]) -> list[Judged]:
    return [Judged(q, replies[q.id], made.judge(q, replies[q.id])) for q in made.read().questions if q.id in replies]


TWO_ROWS = {
    "0-what": "a red kite", "0-when-1": "2 to 6", "0-where-1": json.dumps({"2": BOX}),
    "0-where-2": json.dumps({"2": BOX, "4": HALF}), "0-when-2": "4 to 8",
    "1-what": "", "1-when-1": "2 to 4", "1-where-1": "", "1-where-2": "", "1-when-2": "8 to 9",
}  # fmt: skip
"""what: 1, 0. Chain 1: when 1, 0.5; where 0.5, 0. Chain 2: when 1/3, 0; where 0.75, 0."""


def test_figures_by_hand(tmp_path: Path) -> None:
    made = bench(tmp_path, row(), row(vid="b"))
    figures = {f.name: f for f in made.figures(_judged(made, TWO_ROWS))}
    value = {name: f.value for name, f in figures.items()}
    am1, am2 = (0.5 + 0.75 + 0.25) / 3, (0.5 + 1 / 6 + 0.375) / 3
    lgm1 = -(math.log(0.5) + math.log(0.25) + math.log(0.75)) / 3
    lgm2 = -(math.log(0.5) + math.log(5 / 6) + math.log(0.625)) / 3
    expected = {
        "Acc (what, by rule)": 0.5,
        "R1@0.3 (chain 1)": 1, "R1@0.5 (chain 1)": 1, "R1@0.7 (chain 1)": 0.5, "m_tIoU (chain 1)": 0.75,
        "AP@0.1 (chain 1)": 0.25, "AP@0.9 (chain 1)": 0.25, "m_vIoU (chain 1)": 0.25,
        "R1@0.3 (chain 2)": 0.5, "R1@0.5 (chain 2)": 0, "m_tIoU (chain 2)": 1 / 6,
        "AP@0.5 (chain 2)": 0.5, "AP@0.7 (chain 2)": 0.25, "m_vIoU (chain 2)": 0.375,
        "AM (chain 1)": am1, "AM (chain 2)": am2, "mAM": (am1 + am2) / 2,
        "LGM (chain 1)": lgm1, "LGM (chain 2)": lgm2, "mLGM": (lgm1 + lgm2) / 2,
        "VQA & Temp (chain 1)": 0.5, "VQA & Temp & Spat (chain 1)": 0.5, "Temp & Spat (chain 2)": 0.5,
    }  # fmt: skip
    assert {name: value[name] for name in expected} == pytest.approx(expected)
    assert [name for name, f in figures.items() if f.headline] == ["mAM", "mLGM"]
    assert {figures[n].n for n in ("mAM", "mLGM", "AM (chain 1)", "m_tIoU (chain 2)")} == {2}
    assert figures["mAM"].se > 0


def test_lgm_is_finite_where_everything_is_right(tmp_path: Path) -> None:
    made = bench(tmp_path, row())
    value = {f.name: f.value for f in made.figures([Judged(q, r, made.judge(q, r)) for q, r in _truths(made)])}
    assert value["mAM"] == 1
    assert value["mLGM"] == pytest.approx(6 * math.log(10))


def _truths(made: VStar) -> list[tuple[Question, str]]:
    return [(q, made.truth(q)) for q in made.read().questions]


def test_where_only_some_questions_were_asked_there_is_no_average_of_aspects(tmp_path: Path) -> None:
    made = bench(tmp_path, row())
    figures = made.figures(_judged(made, {"0-when-1": "2 to 6"}))
    assert [f.name for f in figures if f.headline] == ["R1@0.3 (chain 1)"]
    assert not any("AM" in f.name or "LGM" in f.name for f in figures)
    assert made.figures([]) == []


def test_the_submission_is_what_the_authors_scorer_reads(tmp_path: Path) -> None:
    made = bench(tmp_path, row(), row(vid="b"))
    judged = _judged(made, TWO_ROWS)
    (content,) = made.submission(judged[::-1]).values()
    first, second = json.loads(content)
    assert first == row() | {
        "answer_vqa": "a red kite",
        "answer_temporal": [2, 6], "answer_temporal_pre": "2 to 6",
        "answer_spatial": {"2": BOX}, "answer_spatial_pre": TWO_ROWS["0-where-1"],
        "answer_temporal_2": [4, 8], "answer_temporal_pre_2": "4 to 8",
        "answer_spatial_2": {"2": BOX, "4": HALF}, "answer_spatial_pre_2": TWO_ROWS["0-where-2"],
    }  # fmt: skip
    assert (second["vid"], second["answer_vqa"], second["answer_spatial"]) == ("b", "", None)
    assert made.submission([]) == {}


WRONG: tuple[tuple[Any, str], ...] = (
    (row(fps=0), "fps: must be above 0"),
    (row(frame_count="many"), "frame_count: must be a number"),
    (row(timestamps=[6, 2]), "timestamps: must rise"),
    (row(timestamps=[2]), "timestamps: must be a list of two numbers"),
    (row(timestamps=[2, None]), "timestamps: must be a number"),
    (row(bboxes=[]), "bboxes: must not be empty"),
    (row(bboxes=[{"timestamp": 2, "xmin": 1, "ymin": 1, "xmax": 2}]), "bboxes[0]: ymax: missing"),
    (row(bboxes={"2": BOX}), "bboxes: must be a list"),
    (row(answer="…"), "answer: must have a word"),
    (row(question=7), "question: must be a text"),
    (row(vid="../a"), "vid: must be the name of a video"),
    (row(spatial_question="\ud800"), "not unicode"),
    ("a row", "must be an object"),
    ({k: v for k, v in row().items() if k != "spatial_question_2"}, "spatial_question_2: missing"),
)


@pytest.mark.parametrize(("wrong", "reason"), WRONG, ids=[reason for _, reason in WRONG])
def test_a_wrong_row_is_listed_and_costs_its_five_questions(tmp_path: Path, wrong: Any, reason: str) -> None:
    found = bench(tmp_path, row(), wrong, row(vid="b")).read()
    assert [q.bundle for q in found.questions] == ["0"] * 5 + ["2"] * 5
    (problem,) = found.problems
    assert (problem.where, problem.questions) == ("V_STaR_test.json[1]", 5)
    assert reason in problem.reason


def test_without_annotations_the_error_says_what_goes_where(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"put V_STaR_test.json there"):
        VStar(VStar.Config(), tmp_path).read()


def test_unicode_survives_from_the_file_to_the_submission(tmp_path: Path) -> None:
    made = bench(tmp_path, row(answer="凧 🪁", question="何ですか"))
    (q, *_) = made.read().questions
    assert "何ですか" in made.prompt(q, [])
    (content,) = made.submission([Judged(q, "凧。", made.judge(q, "凧。"))]).values()
    assert "何ですか" in content.decode()
    assert made.judge(q, "凧。").score == 1
