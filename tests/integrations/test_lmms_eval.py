"""Our models behind lmms-eval's interface, and through lmms-eval itself on tasks made here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vxl_lightning.data.decoding import DecodeError, stream_frames, write_video
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation import models
from vxl_lightning.evaluation.answerer import Answerer, Asked, Reply, Shown

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed; docs/lmms_eval.md says how", exc_type=ImportError)

from lmms_eval.api.instance import Instance

from vxl_lightning.integrations.lmms_eval_model import Vxl, VxlMessages, VxlTexts

RUN = Path(__file__).with_name("lmms_eval_run.py")


class Noting(Answerer):
    """Repeats the question and notes what it is shown."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self.frames: list[int] = []
        self.asked: list[list[Asked]] = []

    @property
    def identity(self) -> dict[str, Any]:
        return {}

    def replies(self, shown: Shown, asked: Sequence[Asked]) -> Iterator[Reply]:
        self.shown.append(shown)
        self.asked.append(list(asked))
        self.frames.append(sum(len(frames) for frames, _ in stream_frames(shown.path, shown.times)))
        for one in asked:
            if one.prompt == "break":
                raise DecodeError("broke in the middle")
            scores = {choice: -float(len(choice)) for choice in one.choices}
            text = max(scores, key=scores.__getitem__) if scores else f"{one.prompt}!"
            yield Reply(text, scores, counts={"visual_tokens": 5, "text_tokens": 2})


@pytest.fixture
def answerer(monkeypatch: pytest.MonkeyPatch) -> Noting:
    noting = Noting()
    monkeypatch.setattr(models, "answerer_from", lambda model, **settings: noting, raising=False)
    return noting


def video(folder: Path, name: str, light: int = 100, frames: int = 16) -> str:
    path = folder / name
    write_video(path, torch.full((frames, 3, 64, 64), light, dtype=torch.uint8), 4.0)
    return str(path)


def said(*contents: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(contents)}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def film(path: Any, **more: Any) -> dict[str, Any]:
    return {"type": "video", "url": path, **more}


def instance(index: int, arguments: tuple[Any, ...], kind: str = "generate_until") -> Instance:
    return Instance(kind, arguments, index, {"task": "toy", "doc_id": index, "repeats": 1})


def generate(made: Vxl, *conversations: list[dict[str, Any]], settings: dict[str, Any] | None = None) -> list[str]:
    made.task_dict = {"toy": {"test": list(conversations)}}
    requests = [
        instance(i, ("", lambda document: document, settings or {}, i, "toy", "test"))
        for i in range(len(conversations))
    ]
    return [result.text for result in made.generate_until(requests)]


def likelihoods(made: Vxl, *asked: tuple[Any, ...]) -> list[tuple[float, bool]]:
    """Of (video, context, continuation)."""
    made.task_dict = {"toy": {"test": [{"video": path} for path, _, _ in asked]}}
    requests = [
        instance(i, (context, to, lambda document: [document["video"]], i, "toy", "test"), "loglikelihood")
        for i, (_, context, to) in enumerate(asked)
    ]
    return [result.text for result in made.loglikelihood(requests)]  # type: ignore[misc]


def test_a_video_is_looked_at_once_and_replies_come_in_the_order_of_the_requests(
    answerer: Noting, tmp_path: Path
) -> None:
    a, b = video(tmp_path, "a.mp4"), video(tmp_path, "b.mp4")
    turns = [[said(film(path), text(words))] for path, words in ((a, "1"), (b, "2"), (a, "3"))]
    assert generate(VxlMessages("m", fps=2, max_frames=3), *turns) == ["1!", "2!", "3!"]
    assert [shown.path.name for shown in answerer.shown] == ["a.mp4", "b.mp4"]
    assert answerer.frames == [3, 3]


def test_a_task_says_how_long_a_reply_may_be_and_where_it_stops(answerer: Noting, tmp_path: Path) -> None:
    turn = [said(film(video(tmp_path, "a.mp4")), text("one\ntwo\n\nthree"))]
    made = VxlMessages("m")
    assert generate(made, turn, settings={"max_new_tokens": 16, "until": ["\n"]}) == ["one"]
    assert generate(made, turn, settings={"until": ["\n\n"]}) == ["one\ntwo\n\nthree!"]
    assert [one.max_new_tokens for asked in answerer.asked for one in asked] == [16, 0]


def test_texts_around_the_video_and_of_the_system_are_said_after_it(answerer: Noting, tmp_path: Path) -> None:
    turns = [said(text("Be brief."), role="system"), said(text("Watch."), film(video(tmp_path, "a.mp4")), text("Who?"))]
    assert generate(VxlMessages("m"), turns) == ["Be brief.\nWatch.\nWho?!"]


def test_a_part_of_a_video_is_shown_as_that_part(answerer: Noting, tmp_path: Path) -> None:
    a = video(tmp_path, "a.mp4")
    part = {"path": a, "video_start": 1.0, "video_end": 3.0}
    generate(VxlMessages("m"), [said(film(a, start_time=1.0, end_time=3.0), text("?"))], [said(film(part), text("?"))])
    assert [list(shown.times) for shown in answerer.shown] == [[1.0, 2.0]]


def test_a_part_outside_its_video_costs_its_question(answerer: Noting, tmp_path: Path) -> None:
    a = video(tmp_path, "a.mp4")
    assert generate(VxlMessages("m"), [said(film(a, start_time=9.0, end_time=12.0), text("?"))]) == [""]


def test_images_are_frames_one_second_apart(answerer: Noting, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "still.jpg")
    images = [{"type": "image", "url": Image.new("L", (32, 32))}, {"type": "image", "url": str(tmp_path / "still.jpg")}]
    assert generate(VxlMessages("m", fps=4), [said(*images, text("?"))]) == ["?!"]
    assert (answerer.frames, list(answerer.shown[0].times)) == ([2], [0.0, 1.0])


def test_all_missing_videos_are_listed_before_one_is_shown(answerer: Noting, tmp_path: Path) -> None:
    turns = [
        [said(film(path), text("?"))] for path in (video(tmp_path, "a.mp4"), "/no/x.mp4", "/no/y.mp4", "/no/x.mp4")
    ]
    with pytest.raises(UserError, match=r"2 videos of 3 questions are missing: /no/x.mp4, /no/y.mp4;"):
        generate(VxlMessages("m"), *turns)
    assert answerer.shown == []


def test_an_unreadable_video_costs_its_questions_alone(answerer: Noting, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    paths = [str(tmp_path / "bad.mp4"), video(tmp_path, "a.mp4"), str(tmp_path / "bad.mp4")]
    assert generate(VxlMessages("m"), *[[said(film(p), text("?"))] for p in paths]) == ["", "?!", ""]
    with pytest.raises(DecodeError):
        likelihoods(VxlTexts("m"), (paths[0], "?", "yes"))


def test_what_was_answered_before_a_video_broke_is_kept(answerer: Noting, tmp_path: Path) -> None:
    a = video(tmp_path, "a.mp4")
    assert generate(VxlMessages("m"), *[[said(film(a), text(t))] for t in ("1", "break", "3")]) == ["1!", "", ""]


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ([text("?")], "shows 0 visuals"),
        ([film("a.mp4"), film("b.mp4"), text("?")], "shows 2 visuals"),
        ([film("a.mp4"), {"type": "image", "url": "b.png"}, text("?")], "shows 2 visuals"),
        ([film("a.mp4"), {"type": "audio", "url": "b.wav"}, text("?")], "has sound"),
    ],
)
def test_turns_that_cannot_be_shown_are_refused(answerer: Noting, contents: list[Any], reason: str) -> None:
    with pytest.raises(UserError, match=f"toy: {reason}"):
        generate(VxlMessages("m"), [said(*contents)])


def test_examples_before_the_question_are_refused(answerer: Noting) -> None:
    with pytest.raises(UserError, match="turns of an assistant"):
        generate(VxlMessages("m"), [said(film("a.mp4")), said(text("yes"), role="assistant"), said(text("?"))])


@pytest.mark.parametrize("settings", [{"temperature": 0.7}, {"do_sample": True}, {"num_beams": 4}])
def test_replies_drawn_at_random_are_refused(answerer: Noting, settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--gen_kwargs do_sample=False,num_beams=1"):
        generate(VxlMessages("m"), [said(film("a.mp4"), text("?"))], settings=settings)


def test_the_likeliest_reply_may_be_asked_for_in_any_words(answerer: Noting, tmp_path: Path) -> None:
    turn = [said(film(video(tmp_path, "a.mp4")), text("?"))]
    for settings in ({"temperature": 0, "top_p": 1.0, "num_beams": 1}, {"temperature": 1.0, "do_sample": False}):
        assert generate(VxlMessages("m"), turn, settings=settings) == ["?!"]


@pytest.mark.parametrize("settings", [{"batch_size": 4}, {"batch_size": "auto"}, {"fps": 0}, {"max_frames": 0}])
def test_settings_are_checked_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(models, "answerer_from", lambda model, **s: pytest.fail("loaded"), raising=False)
    with pytest.raises(UserError, match=str(*settings)):
        VxlMessages("m", **settings)


def test_likelihoods_are_losses_and_the_likeliest_choice_would_be_said(answerer: Noting, tmp_path: Path) -> None:
    a, b = video(tmp_path, "a.mp4"), video(tmp_path, "b.mp4")
    asked = [(a, "Is it?", " yes"), (b, "Who?", " me"), (a, "Is it?", " no"), (b, "Who?", " nobody")]
    assert likelihoods(VxlTexts("m"), *asked) == [(3.0, False), (2.0, True), (2.0, True), (6.0, False)]
    assert len(answerer.shown) == 2


def test_a_continuation_that_stands_alone_is_compared_with_a_generated_reply(answerer: Noting, tmp_path: Path) -> None:
    a = video(tmp_path, "a.mp4")
    asked = [(a, "Is it?", lambda document: " Is it"), (a, "Who?", " me")]
    assert likelihoods(VxlTexts("m"), *asked) == [(5.0, True), (2.0, False)]


def test_likelihoods_without_a_video_are_refused(answerer: Noting) -> None:
    with pytest.raises(UserError, match="acc_mutual_info"):
        VxlTexts("m").loglikelihood([instance(0, ("", "yes"), "loglikelihood")])


TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: {kind}
doc_to_visual: !function functions.visuals
doc_to_text: !function functions.text
doc_to_target: answer
{more}
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""

GENERATION = """generation_kwargs:
  max_new_tokens: 7
  until: ["\\n"]
process_results: !function functions.results"""

FUNCTIONS = """
def visuals(document):
    return [document["video"]]

def text(document, lmms_eval_specific_kwargs=None):
    return document["question"]

def results(document, replies):
    return {"acc": float(replies[0] == document["answer"])}
"""


def run(folder: Path, interface: str, task: str) -> Any:
    """What lmms-eval makes of a task: dark and bright videos, two questions each, one answer published wrongly."""
    videos = [video(folder, "dark.mp4", 30), video(folder, "bright.mp4", 220)]
    rows = [
        {"video": videos[i % 2], "question": f"Is it bright? {i}", "answer": ("no", "yes", "no", "no")[i]}
        for i in range(4)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "functions.py").write_text(FUNCTIONS)
    for name, kind, more in (
        ("toy_reply", "generate_until", GENERATION), ("toy_choice", "multiple_choice", "doc_to_choice: ['no', 'yes']")
    ):  # fmt: skip
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, kind=kind, more=more, rows=folder / "rows.jsonl"))
    offline = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, str(RUN), str(folder), str(folder / "out.json"), interface, task]
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "out.json").read_text())


@pytest.mark.slow
def test_lmms_eval_scores_generated_replies(tmp_path: Path) -> None:
    out = run(tmp_path, "chat", "toy_reply")
    assert out["scores"] == {"toy_reply": 0.75}
    assert out["samples"]["toy_reply"] == [[[word], [{"input_tokens": 13}]] for word in ("no", "yes", "no", "yes")]
    assert out["looks"] == [
        [name, 3, [[f"Is it bright? {i}", [], 7] for i in numbers]]
        for name, numbers in (("dark.mp4", (0, 2)), ("bright.mp4", (1, 3)))
    ]
    assert out["backend"] == "vxl_lightning.integrations.lmms_eval_model.VxlMessages (chat)"


@pytest.mark.slow
def test_lmms_eval_scores_likelihoods_of_choices(tmp_path: Path) -> None:
    out = run(tmp_path, "simple", "toy_choice")
    assert out["scores"] == {"toy_choice": 0.75}
    assert [look[2][0][1] for look in out["looks"]] == [["no", "yes"]] * 2
