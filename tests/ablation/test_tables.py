import pyarrow.parquet as pq
import pytest
from tests.ablation import synthetic

from vxl_lightning.ablation.tables import latex, read_predictions, write_tables


def test_the_same_answers_give_the_same_bytes(tmp_path):
    rows = synthetic.rows()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_tables(tmp_path / name, rows, synthetic.predictions(rows))
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["comparisons.parquet", "predictions.parquet", "results.parquet", "table.md", "table.tex"]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_results_hold_accuracy_chance_costs_and_tests(tmp_path):
    rows = synthetic.rows()
    predictions = synthetic.predictions(rows)
    write_tables(tmp_path, rows, predictions)
    assert read_predictions(tmp_path / "predictions.parquet") == predictions
    table = {(r["variant"], r["task"]): r for r in pq.read_table(tmp_path / "results.parquet").to_pylist()}
    assert len(table) == len(rows) * 4
    best = table["dts_recot", "all"]
    right = [p["correct"] for p in predictions if p["variant"] == "dts_recot"]
    assert best["mean"] == pytest.approx(sum(right) / len(right)) and best["n"] == len(right) == 60
    assert best["lm_tokens"] == 32 and best["kv_length"] == 72 and best["gain"] == 0.11
    assert best["chance"] == pytest.approx((1 / 8 + 1 / 8 + 1 / 6) / 3)
    assert best["p_random"] < 0.01 < table["random", "all"]["p_pool"]
    assert table["none", "all"]["p_random"] is None, "no baseline has the uncompressed row's budget"
    assert best["se_seeds"] is None


def test_markdown_and_latex_show_every_row_and_the_seeds(tmp_path):
    rows = synthetic.rows(budgets=(0.0625, 0.125))
    write_tables(tmp_path, rows, synthetic.predictions(rows, seeds=(0, 1)))
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0].startswith("| row | tokens | what | when | colour | all | p vs random | p vs pool |")
    assert lines[2].startswith("| chance |") and sum(line.startswith("| dts") for line in lines) == 4
    assert "[" in lines[3] and "2 seeds" in lines[-1]
    assert (tmp_path / "table.tex").read_text().count(r"\\") == len(rows) + 2
    assert latex(["a_b"], [["50% & <"]]).count(r"a\_b") == 1 and r"50\% \& $<$" in latex(["a"], [["50% & <"]])
