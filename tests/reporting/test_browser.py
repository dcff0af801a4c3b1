import json

import pytest
from tests.ablation import synthetic
from tests.reporting import evaluation_tables as fake

from vxl_lightning.reporting import plots
from vxl_lightning.reporting.browser import ablation_browser
from vxl_lightning.reporting.page import embedded


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_an_ablations_rows_are_its_variants_budgets_and_seeds(seeds):
    rows = synthetic.rows((0.0625, 0.25), ("none", "dts"))
    predictions = synthetic.predictions(rows, videos=2, seeds=seeds)
    found = ablation_browser(predictions)
    names = ["none · 1", "dts · 1/16", "dts · 1/4"]
    assert found["rows"] == (names if len(seeds) == 1 else [f"{n} · seed {s}" for n in names for s in seeds])
    assert len(found["questions"]) == 6 and found["questions"][0]["categories"] == {"task": "what"}
    for question in found["questions"]:
        of_it = [p for p in predictions if p["question_id"] == question["id"]]
        assert [r[:3] for r in question["replies"]] == [[p["prediction"]] * 2 + [float(p["correct"])] for p in of_it]


def test_what_is_embedded_cannot_leave_its_script_and_comes_back_as_it_was():
    value = {"text": "</script><!-- ü \u2028 \"'", "n": [1.5, None]}
    assert "<" not in embedded(value) and json.loads(embedded(value)) == value


def test_numbers_that_are_none_are_refused_in_a_page():
    with pytest.raises(ValueError, match="JSON compliant"):
        embedded({"x": float("nan")})


def test_needle_grids_have_depth_downwards_and_say_value_and_number():
    records = [
        {"row": "a", "length": 128, "depth": 0.5, "mean": 0.25, "se": 0.1, "n": 8},
        {"row": "a", "length": 64, "depth": 0.0, "mean": 1.0, "se": float("nan"), "n": 4},
        {"row": "b", "length": 64, "depth": 0.0, "mean": 0.0, "se": None, "n": 4},
        {"row": "b", "length": 64, "depth": 1.0, "mean": float("nan"), "se": None, "n": 0},
    ]
    found = plots.depth_by_length(records)
    assert list(found) == ["a", "b"]
    (grid,) = found["a"]["data"]
    assert (grid["x"], grid["y"], grid["z"]) == (["64", "128"], ["0", "50"], [[1.0, None], [None, 0.25]])
    assert grid["text"] == [["<b>1.00</b><br>n 4", ""], ["", "<b>0.25</b><br>n 8"]]
    assert grid["customdata"][1][1] == [8, " ± 0.100"] and grid["customdata"][0][0] == [4, ""]
    (none,) = found["b"]["data"]
    assert none["z"] == [[0.0], [None]] and none["text"] == [["<b>0.00</b><br>n 4"], ["–<br>n 0"]]
    assert (grid["zmin"], grid["zmax"]) == (0, 1) and found["a"]["layout"]["yaxis"]["autorange"] == "reversed"


def test_published_colours_run_from_red_to_green_and_others_to_blue():
    ends = [
        plots.depth_by_length(fake.NEEDLES, published=p)["reference"]["data"][0]["colorscale"][-1][1] for p in (0, 1)
    ]
    blue, green = ([int(v) for v in colour.removeprefix("rgb(").rstrip(")").split(",")] for colour in ends)
    assert blue[2] == max(blue) and green[1] == max(green)


def test_bars_hatch_a_colour_that_comes_again_and_show_chance_once_a_group():
    records = [
        {"row": row, "group": group, "mean": 0.5, "se": None, "n": 3, "chance": 0.25}
        for row in ("a", "b")
        for group in ("<x>", "a category with a very long name that goes on")
    ]
    figure = plots.bars_by_group(records, {"a": "#000000", "b": "#000000"})
    a, b, chance = figure["data"]
    assert (a["marker"]["pattern"]["shape"], b["marker"]["pattern"]["shape"]) == ("", "/")
    assert chance["x"] == [0.25, 0.25] and chance["y"] == [0, 1]
    ticks = figure["layout"]["yaxis"]["ticktext"]
    assert ticks[0].startswith("&lt;x&gt;<br>") and ticks[1].count("<br>") == 2 and "…" in ticks[1]
