import json

import pytest
from tests.ablation import synthetic

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
