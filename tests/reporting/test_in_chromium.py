"""The reports as readers use them: opened from a folder in headless Chromium, clicked through, offline."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.ablation import synthetic
from tests.reporting import evaluation_tables as fake
from tests.reporting.chromium import BROWSER, Chromium
from tests.reporting.test_needles import FOUND

from vxl_lightning.ablation.tables import BASELINES, caption, write_tables
from vxl_lightning.evaluation.results import questions
from vxl_lightning.reporting.browser import Videos
from vxl_lightning.reporting.manifest import manifest
from vxl_lightning.reporting.needles import write_report as write_needles
from vxl_lightning.reporting.report import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine; Debian's package chromium has it"),
]
WIDTHS = (1280, 400)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    return fake.answers(tmp_path_factory.mktemp("benchmarks"), 120)


@pytest.fixture(scope="module")
def evaluation(answers, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    folder = out / "videos"
    fake.write_videos(folder)
    lengths = {folder / f"{i}.mp4": fake.SECONDS for i in range(12)}
    videos = Videos({"quiz": folder, "other": folder}, lengths, 6)
    fake.write_report(out / "report.html", answers, videos)
    return out / "report.html"


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    out = tmp_path_factory.mktemp("ablation")
    rows = synthetic.rows((0.0625, 0.25))
    predictions = synthetic.predictions(rows)
    records = write_tables(out, rows, predictions)
    write_report(
        out / "report.html", name="tiny", results=records, timings=synthetic.timings(rows),
        comparisons=pq.read_table(out / "comparisons.parquet").to_pylist(), pictures=[],
        manifest=manifest({}, [0], [], {"test": "abc"}), caption=caption(records), baselines=BASELINES,
        predictions=predictions,
    )  # fmt: skip
    return out / "report.html"


@pytest.fixture(scope="module")
def needles(tmp_path_factory):
    path = tmp_path_factory.mktemp("needles") / "needle.html"
    write_needles(path, "tiny", FOUND)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = Chromium(tmp_path_factory.mktemp("chromium") / "profile")
    yield chromium
    chromium.close()


@pytest.fixture
def page(browser, request):
    """Opens a report; in the end nothing went wrong in it and nothing was asked of any network."""
    browser.errors.clear()
    browser.requests.clear()
    yield lambda report, width=1280: browser.open(request.getfixturevalue(report).as_uri(), width) or browser
    assert browser.errors == [] and browser.requests == []


def shown(page):
    """The status of the list: first, last, number found, and number of all where it is more."""
    return [int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d", page.text("#count"))]


def verdicts(records):
    """(benchmark, id) -> row -> whether it is right."""
    found = {}
    for r in records:
        found.setdefault((r["benchmark"], r["id"]), {})[r["row"]] = r["score"] == 1
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("report", ["evaluation", "ablation", "needles"])
def test_a_report_draws_within_the_width_of_the_page(page, report, width, tmp_path):
    browser = page(report, width)
    inside, window = browser.run("[document.documentElement.scrollWidth, innerWidth]")
    assert inside <= window == width
    late = browser.run(
        "[...document.querySelectorAll('section *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
        " && !e.closest('.scroll, pre, svg, select, .plotly-graph-div')).map(e => e.outerHTML.slice(0, 90))"
    )
    assert late == [], "nothing sticks out but what scrolls"
    browser.screenshot(tmp_path / "page.png")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    colour = (165, 0, 38) if report == "needles" else (0, 114, 178)
    assert colour in {tuple(int(v) for v in c) for c in pixels.reshape(-1, 3)[::7]}, "figures are drawn"


def test_menus_switch_the_bars(page):
    browser = page("evaluation")
    ticks = "[...document.querySelectorAll('#by-group .yaxislayer-above text')].map(t => t.textContent).join(' ')"
    assert "action count" in browser.run(ticks)
    assert browser.count("#by-group .trace.bars") == 3
    browser.choose("#by-group .second", "duration")
    browser.settle()
    assert "short" in browser.run(ticks) and "action count" not in browser.run(ticks)
    browser.choose("#by-group .first", "other")
    browser.settle()
    assert browser.run("document.querySelector('#by-group .second').value") == "duration", "the way to divide stays"
    assert re.search(r"short\s*n = 20", browser.run(ticks))
    browser.resize(700)
    browser.settle()
    assert browser.run("document.querySelector('#by-group .main-svg').getBoundingClientRect().right <= innerWidth")


def test_budgets_switch_the_bars_of_an_ablation(page):
    browser = page("ablation")
    bars = "JSON.stringify(document.querySelector('#by-task .plotly-graph-div').data.map(t => t.x))"
    before = browser.run(bars)
    browser.choose("#by-task .second", "1/4")
    browser.settle()
    assert browser.run(bars) != before
    assert browser.count("#by-task .trace.bars") == 5 and "chance" in browser.text("#by-task")


def test_needles_change_their_score_and_their_colours(page):
    browser = page("needles")
    assert browser.count("#needles .heatmaplayer image") == 2
    cells = browser.text("#needles .plotly-graph-div")
    assert "0.25" in cells and "n 8" in cells
    scale = "JSON.stringify(document.querySelector('#needles .plotly-graph-div').data[0].colorscale)"
    blue = browser.run(scale)
    browser.choose("#colours", "red to green, as published")
    browser.choose("#score", "when: iou")
    browser.settle()
    assert "0.40" in browser.text("#needles .plotly-graph-div") and browser.run(scale) != blue
    browser.choose("#colours", "red to blue")
    browser.settle()
    assert "0.40" in browser.text("#needles .plotly-graph-div") and browser.run(scale) == blue


def test_filters_find_what_they_say(page, answers):
    browser = page("evaluation")
    found = verdicts(questions(answers))
    assert shown(browser) == [1, 50, 150] and browser.count("#list button") == 50
    browser.choose("#row-a", "uniform 1/16")
    browser.choose("#row-b", "dtd 1/4")
    browser.click("#lost")
    lost = [k for k, rows in found.items() if not rows["uniform 1/16"] and rows["dtd 1/4"]]
    assert shown(browser)[2:] == [len(lost), 150]
    browser.click("#won")
    won = [k for k, rows in found.items() if rows["uniform 1/16"] and not rows["dtd 1/4"]]
    assert shown(browser)[2:] == [len(won), 150]
    browser.choose("#in-benchmark", "other")
    assert shown(browser)[2:] == [len([k for k in won if k[0] == "other"]), 150]
    browser.click("#clear")
    assert shown(browser) == [101, 150, 150], "the open question stays open, on its page"
    browser.choose("#in-category", "state (38)")
    assert shown(browser) == [1, 38, 38, 150]
    browser.choose("#is-a", "no answer found in the reply")
    unparsed = [r for r in questions(answers) if r["row"] == "uniform 1/16" and r["parsed"] is None and not r["failed"]]
    assert shown(browser)[2] == len([r for r in unparsed if json.loads(r["categories"])["task"] == "state"])
    browser.click("#clear")
    browser.write("#search", "NUMBER 77: ball")
    assert shown(browser) == [1, 1, 1, 150] and "Number 77:" in browser.text("#chosen h3")
    browser.write("#search", "no such words")
    assert shown(browser) == [0, 0, 0, 150] and "No question" in browser.text("#list")


def test_a_question_opens_with_truth_replies_and_the_frames_kept(page, answers, tmp_path):
    browser = page("evaluation")
    browser.click("#list li:nth-child(2) button")
    records = [r for r in questions(answers) if (r["benchmark"], r["id"]) == ("quiz", "q1")]
    chosen = browser.text("#chosen")
    assert "Number 1: what colour is the <b>ball</b>" in chosen, "markup in a question is text"
    assert f"Truth {records[0]['answer']}" in chosen
    assert browser.text("#chosen .truth").endswith(records[0]["answer"])
    assert browser.count("#chosen .reply") == 3
    for i, record in enumerate(records):
        reply = browser.text(f"#chosen .reply:nth-of-type({i + 2})")
        assert record["row"] in reply and record["reply"].split()[0] in reply and f"score {record['score']:g}" in reply
        assert ("no answer found" in reply) == (record["parsed"] is None)
    marks = "[...document.querySelectorAll('#chosen svg')].map(s => s.querySelectorAll('rect').length)"
    assert browser.run(marks) == list(fake.KEPT.values())
    assert "8 frames kept, 0 s to 7 s" in chosen
    widths = browser.run("[...document.querySelectorAll('#chosen img')].map(i => i.naturalWidth)")
    assert len(widths) == 3 and widths[0] == 6 * 160 + 5 * 2 and widths[2] == 2 * 160 + 2
    browser.screenshot(tmp_path / "question.png", "#questions")
    assert Image.open(tmp_path / "question.png").size[0] > 900


def test_a_failed_video_says_why(page):
    browser = page("evaluation")
    browser.choose("#is-a", "video not shown")
    assert shown(browser)[2] == 2
    assert "cannot be decoded" in browser.text("#chosen")


def test_keys_walk_through_the_questions(page):
    browser = page("ablation")
    browser.click("#list li:first-child button")
    browser.press("ArrowDown")
    current = "document.querySelector('#list [aria-current=true]')"
    at = f"[...document.querySelectorAll('#list button')].indexOf({current})"
    assert browser.run(at) == 1 and browser.run(f"document.activeElement === {current}")
    browser.press("PageDown")
    assert shown(browser)[:2] == [51, 60] and browser.run(at) == 1
    browser.press("Home")
    assert shown(browser)[:2] == [1, 50] and browser.run(at) == 0
    browser.press("End")
    assert shown(browser)[:2] == [51, 60] and browser.run(at) == 9
    browser.click("#back")
    assert shown(browser)[:2] == [1, 50]


def test_an_ablations_answers_stand_beside_the_truth(page):
    browser = page("ablation")
    assert browser.run("document.querySelector('#in-benchmark').parentElement.hidden")
    browser.choose("#row-a", "dts_recot · 1/4")
    browser.choose("#row-b", "none · 1")
    browser.click("#won")
    chosen = browser.text("#chosen")
    assert "Truth" in chosen and "dts_recot · 1/16" in chosen and "task:" in chosen
    assert browser.run("document.querySelector('#chosen .reply .mark').className") == "mark wrong"
