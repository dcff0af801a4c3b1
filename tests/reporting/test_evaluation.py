import json
import re

import pyarrow.parquet as pq
import pytest
from tests.evaluation.toy import Sayer, Toy
from tests.reporting import evaluation_tables as fake

from vxl_lightning.ablation.statistics import sign_flip
from vxl_lightning.evaluation.base import Problem
from vxl_lightning.evaluation.config import EvaluationConfig
from vxl_lightning.evaluation.results import questions
from vxl_lightning.evaluation.runner import Chosen, run
from vxl_lightning.reporting import browser, evaluation
from vxl_lightning.reporting.browser import Videos, evaluation_browser


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    return fake.answers(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="module")
def html(answers, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    fake.write_report(path, answers)
    return path.read_text(encoding="utf-8")


def main(html):
    """The page's own text, without style and plotly."""
    return html[html.index("<main>") :]


def data(html, holder):
    found = re.search(rf'id="{holder}"[^{{\[]*?(?:<script type="application/json">)?([\[{{].*?)</script>', html, re.S)
    return json.loads(found.group(1))


def test_it_is_one_offline_file_in_which_text_is_text(html):
    own = html[: html.index("<script>")] + main(html)
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//|@import|<link|<iframe""", own)
    assert "Content-Security-Policy" in own and html.count("plotly.js v") == 1
    assert "<script>alert('x')" not in html, "what a configuration says is no markup"
    assert "perhaps </script>" not in html and "<b>ball" not in html, "nor is a reply or a question"


def test_headlines_have_value_error_share_of_the_reference_and_test(answers, html):
    wanted = answers[2]
    value = wanted.scores.mean()
    assert wanted.row == "uniform 1/16" and wanted.benchmark == "quiz"
    row = re.findall(r"<tr[^>]*><td>uniform 1/16</td>.*?</tr>", main(html), re.S)[0]
    cells = [re.sub(r"<[^>]*>|&nbsp;", "", c) for c in re.findall(r"<td.*?</td>", row)]
    unparsed = sum(j.judgement.parsed is None for j in wanted.judged) / 64
    assert cells[1].startswith(f"{value:.3f}".lstrip("0") + " ±")
    assert cells[2] == f"{100 * value / answers[0].scores.mean():.1f} %"
    assert cells[3] == f"{value - answers[0].scores.mean():+.3f}"
    p = sign_flip(wanted.scores - answers[0].scores, wanted.videos)
    assert 0 < p < 1 and cells[4:] == [f"{p:.3f}", f"{100 * unparsed:.1f} %", "1"]


def test_other_figures_problems_costs_and_failed_videos_are_told(html):
    text = main(html)
    for told in (
        "mean of tasks (macro)", "quiz.json[7]", "answer &#39;C&#39; is none of its options", "4 questions that cannot",
        "no moov atom", "KV MiB", "answer ms", "questions missing", "videos not shown",
    ):  # fmt: skip
        assert told in text, told


def test_a_figure_of_other_questions_in_each_row_says_its_own_number(answers, tmp_path):
    """As where replies without an answer are left out: the last row's number stood for all of them."""
    figure = {"benchmark": "quiz", "unit": "accuracy", "headline": False, "retained": 1.0, "difference": 0.0, "p": None}
    counted = [("equal", "reference", 64), ("equal", "dtd 1/4", 64), ("own", "reference", 61), ("own", "dtd 1/4", 1200)]
    results = [figure | {"figure": f, "row": row, "value": 0.5, "se": 0.01, "n": n} for f, row, n in counted]
    results.append(figure | {"figure": "none", "row": "reference", "value": float("nan"), "se": float("nan"), "n": 0})
    fake.write_report(tmp_path / "report.html", answers, results=results)
    text = main((tmp_path / "report.html").read_text())
    lines = {name: re.findall(rf"<tr><td>{name}</td>(.*?)</tr>", text)[0] for name in ("equal", "own", "none")}
    cells = {
        name: [re.sub(r"<[^>]*>|&nbsp;", "", cell) for cell in re.findall(r"<td>.*?</td>", line)]
        for name, line in lines.items()
    }
    assert cells["equal"] == ["64", ".500 ±.010", ".500 ±.010"]
    assert cells["own"] == ["", ".500 ±.010 n = 61", ".500 ±.010 n = 1,200"]
    assert cells["none"] == ["0", "–", ""]


def test_bars_are_the_groups_in_their_order_with_errors(answers, html):
    panels = data(html, "by-group")
    assert [(p["first"], p["second"]) for p in panels][:2] == [("quiz", "task"), ("quiz", "duration")]
    assert [p["second"] for p in panels if p["first"] == "quiz"] == ["task", "duration", "all"]
    (bars, *_) = panels[0]["figure"]["data"]
    of_state = [j.judgement.score for j in answers[0].judged if j.question.categories["task"] == "state"]
    assert bars["name"] == "reference" and bars["x"][1] == pytest.approx(sum(of_state) / len(of_state))
    assert all(e is None or e > 0 for e in bars["error_x"]["array"]) and len(bars["y"]) == len(fake.TASKS)


def test_without_problems_or_costs_there_are_no_such_parts(answers, tmp_path):
    fake.write_report(tmp_path / "report.html", answers, problems={}, failed={}, costs=[{"row": "a", "benchmark": "b"}])
    text = main((tmp_path / "report.html").read_text())
    for part in ("missing", "costs"):
        assert f'id="{part}"' not in text and f'href="#{part}"' not in text


def test_many_problems_are_counted_and_some_listed(answers, tmp_path):
    problems = {"quiz": [Problem(f"quiz.json[{i}]", "no answer", 2) for i in range(150)]}
    fake.write_report(tmp_path / "report.html", answers, problems=problems)
    text = main((tmp_path / "report.html").read_text())
    assert "300 questions that cannot be asked" in text and "50 more are in manifest.json" in text
    assert text.count("quiz.json[") == evaluation.SHOWN


def test_questions_share_what_they_have_in_common(answers):
    found = evaluation_browser(questions(answers), Videos())
    assert found["rows"] == list(fake.STRENGTH) and found["benchmarks"] == ["quiz", "other"]
    assert [len(k) for k in found["kept"]] == list(fake.KEPT.values()), "each list of seconds is there once"
    assert len(found["questions"]) == 80 and found["pictures"] == {}
    (one,) = [q for q in found["questions"] if q["id"] == "q5" and q["benchmark"] == 1]
    (record,) = [r for r in questions(answers) if (r["row"], r["benchmark"], r["id"]) == ("dtd 1/4", "other", "q5")]
    assert one["replies"][1] == [record["reply"], record["parsed"], record["score"], 1, ""]
    assert one["truth"] == record["answer"] and one["categories"] == json.loads(record["categories"])


def test_a_row_that_was_not_asked_a_question_has_no_reply(answers):
    records = [r for r in questions(answers) if (r["row"], r["id"]) != ("dtd 1/4", "q0")]
    one = evaluation_browser(records, Videos())["questions"][0]
    assert one["id"] == "q0" and [bool(r) for r in one["replies"]] == [True, False, True]


def test_a_score_that_is_no_number_is_refused(answers):
    records = [questions(answers)[0] | {"score": float("nan")}]
    with pytest.raises(ValueError, match="question q0 of row reference has score nan"):
        evaluation_browser(records, Videos())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    fake.write_videos(folder)
    return folder


def test_kept_frames_are_shown_of_the_first_questions_that_went_wrong(answers, folder):
    records = questions(answers)
    folders = {"quiz": folder}
    lengths = {folder / "1.mp4": fake.SECONDS}
    found = evaluation_browser(records, Videos(folders, lengths, 2))
    wrong = {r["id"] for r in records if r["benchmark"] == "quiz" and r["score"] < 1}
    first = next(r["video"] for r in records if r["id"] in wrong)
    assert {name.rpartition(" ")[2] for name in found["pictures"]} == {first}, "other has no folder"
    assert [len(p["times"]) for p in found["pictures"].values()] == [6, 6, 2]
    times = found["pictures"][f"0 0 {first}"]["times"]
    assert times[0] == 0 and times[-1] == 7.5, "the first and the last frame kept are among them"
    assert {q["duration"] for q in found["questions"] if q["video"] == "1.mp4"} == {fake.SECONDS, None}


def test_pictures_stop_where_they_would_make_the_page_large(answers, folder, monkeypatch):
    records, videos = questions(answers), Videos({"quiz": folder, "other": folder}, {}, 50)
    whole = evaluation_browser(records, videos)["pictures"]
    assert {name.rpartition(" ")[2] for name in whole} == {"0.mp4", "1.mp4", "2.mp4"}, "others cannot be read"
    sizes = [len(p["picture"]) for p in whole.values()]
    monkeypatch.setattr(browser, "PICTURES_BYTES", sum(sizes[:3]))
    assert list(evaluation_browser(records, videos)["pictures"]) == list(whole)[:3]


def test_an_evaluation_ends_with_its_report(folder, tmp_path):
    data_root = tmp_path / "data" / "toy"
    data_root.mkdir(parents=True)
    Toy.miniature(data_root)
    for name in ("0.mp4", "1.mp4"):
        (data_root / name).symlink_to(folder / name)
    toy = Toy(Toy.Config(), data_root)
    config = EvaluationConfig(name="A toy's", model="m", out=str(tmp_path / "out"), fps=1.0)
    problems = [Problem("toy.json[7]", "answer 'C' is none of its options")]
    out, ledger = run(
        config, [Chosen("toy", toy, list(toy.read().questions), problems)],
        {"reference": Sayer("yes"), "other": Sayer("perhaps")},
    )  # fmt: skip
    assert set(ledger.durations.values()) == {fake.SECONDS}
    html = (out / "report.html").read_text()
    assert "<h1>A toy&#39;s</h1>" in html and "toy.json[7]" in html and "100.0 %" in html
    found = data(html, "questions-data")
    assert len(found["questions"]) == 6 and found["questions"][1]["replies"] == [
        ["yes", "yes", 0.0, None, ""], ["perhaps", None, 0.0, None, ""],
    ]  # fmt: skip
    assert {q["duration"] for q in found["questions"]} == {fake.SECONDS}
    costs = pq.read_table(out / "costs.parquet").to_pylist()
    assert {c["answer_ms"] for c in costs} == {1.0}
