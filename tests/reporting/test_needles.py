"""The report of needles: what stands in every cell of its page and of its picture."""

import math
import re

import numpy as np
import pytest

from vxl_lightning.reporting import needles


def cell(row, length, depth, mean, se=math.nan, n=4, task="retrieval", score="exact"):
    where = {"row": row, "task": task, "score": score, "length": length, "depth": depth}
    return where | {"mean": mean, "se": se, "n": n}


FOUND = [
    cell("a", 128, 0.5, 0.25, 0.1, 8),
    cell("a", 64, 0.5, 0.5, 0.2, task="when", score="iou"),
    cell("a", 64, 0.0, 1.0),
    cell("a", 64, None, 1.0),
    cell("a", 128, None, 0.25, 0.1, 8),
    cell("a", None, None, 0.5, 0.05, 12),
    cell("b <i>", 64, 0.0, 0.0),
    cell("b <i>", 64, 0.5, math.nan, n=0),
    cell("a", 64, None, 0.4, 0.2, task="when", score="iou"),
]


@pytest.fixture(scope="module")
def maps():
    return needles.heat_maps(FOUND)


def test_every_score_of_every_task_can_be_chosen_in_every_row(maps):
    assert maps["scores"] == ["retrieval: exact", "when: iou"]
    assert [p["row"] for p in maps["panels"]] == ["a", "b <i>"]
    assert all(list(p["cells"]) == maps["scores"] for p in maps["panels"])
    turned = needles.heat_maps(FOUND[::-1])
    assert turned["scores"] == maps["scores"], "the page opens with what the picture shows"


def test_depths_go_down_lengths_across_and_all_depths_stand_last(maps):
    (trace,) = maps["panels"][0]["figure"]["data"]
    assert (trace["x"], trace["y"], trace["zmin"], trace["zmax"]) == (["64", "128"], ["0 %", "50 %", "all"], 0, 1)
    assert maps["panels"][0]["figure"]["layout"]["yaxis"]["autorange"] == "reversed"
    assert maps["panels"][0]["cells"]["retrieval: exact"]["z"] == [[1.0, None], [None, 0.25], [1.0, 0.25]]


def test_a_cell_says_its_mean_its_error_and_how_many_questions_it_is_of(maps):
    filled = maps["panels"][0]["cells"]["retrieval: exact"]
    assert filled["text"][:2] == [["<b>1.00</b><br>n 4", ""], ["", "<b>0.25</b><br>n 8"]]
    assert filled["customdata"][:2] == [[[4, ""], None], [None, [8, " ± 0.100"]]]
    (trace,) = maps["panels"][0]["figure"]["data"]
    assert "%{customdata[1]}" in trace["hovertemplate"] and "n = %{customdata[0]" in trace["hovertemplate"]


def test_what_does_not_fit_is_a_dash_without_colour(maps):
    filled = maps["panels"][1]["cells"]["retrieval: exact"]
    assert filled["z"] == [[0.0, None], [None, None], [None, None]]
    assert filled["text"][:2] == [["<b>0.00</b><br>n 4", ""], ["<b>–</b><br>n 0", ""]]


def test_published_colours_run_from_red_to_green_and_others_to_blue(maps):
    scales = maps["panels"][0]["figure"]["layout"]["meta"]
    ends = [scales[name][-1][1].removeprefix("rgb(").rstrip(")").split(",") for name in ("own", "published")]
    blue, green = ([int(v) for v in colour] for colour in ends)
    assert blue[2] == max(blue) and green[1] == max(green)


def test_the_page_is_one_offline_file_in_which_text_is_text(tmp_path):
    needles.write_report(tmp_path / "needle.html", "What is <b>found</b>", FOUND)
    html = (tmp_path / "needle.html").read_text(encoding="utf-8")
    own = html[html.index("<main>") :]
    assert "<option>retrieval: exact</option><option>when: iou</option>" in own
    assert "b &lt;i&gt;" in own and "<b>found" not in own and "b <i>" not in own
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", own) and html.count("plotly.js v") == 1


def test_the_picture_writes_mean_error_and_number_into_every_cell(monkeypatch):
    written = []
    write = needles.ImageDraw.ImageDraw.text

    def watched(self, place, text, **style):
        written.append(text)
        write(self, place, text, **style)

    monkeypatch.setattr(needles.ImageDraw.ImageDraw, "text", watched)
    sheet = needles.picture(FOUND, "retrieval", "exact", "tiny")
    assert "a  (mean 0.50 ± 0.05, n 12)" in written and "b <i>" in written
    assert written.count("0.25 ± 0.10") == written.count("n 8") == 2 and "n 0" in written
    colours = {tuple(int(v) for v in c) for c in np.asarray(sheet).reshape(-1, 3)}
    assert {needles.RAMP[0], needles.RAMP[-1], needles.colour(0.25), needles.colour(math.nan)} <= colours
