"""The tables of an evaluation, of replies that are given."""

import math
from dataclasses import replace

import pyarrow.parquet as pq

from vxl_lightning.evaluation import results
from vxl_lightning.evaluation.answerer import Reply
from vxl_lightning.evaluation.asking import Answered
from vxl_lightning.evaluation.benchmarks.ego_schema import EgoSchema
from vxl_lightning.evaluation.benchmarks.temp_compass import TempCompass
from vxl_lightning.evaluation.benchmarks.video_mme import VideoMME
from vxl_lightning.evaluation.benchmarks.vnbench import TRIES, VNBench


def made(cls, folder, copies=1):
    """A miniature, its needles as often as wanted, each copy of a video of its own."""
    folder.mkdir(exist_ok=True)
    cls.miniature(folder)
    benchmark = cls(cls.Config(), folder)
    questions = [
        replace(q, id=f"{q.id} {c}", video=f"{q.video} {c}", bundle=q.bundle and f"{q.bundle} {c}")
        for c in range(copies)
        for q in benchmark.read().questions
    ]
    return benchmark, questions


def answers(row, benchmark, questions, say):
    return results.Answers.of(row, "b", benchmark, [Answered(q, Reply(say(q))) for q in questions])


def figures(benchmark, questions, reference, other):
    both = [answers(name, benchmark, questions, say) for name, say in (("reference", reference), ("other", other))]
    return {(r["row"], r["figure"]): r for r in results.figures(both, {"b": benchmark})}


def test_each_figure_is_tested_by_itself(tmp_path):
    """A row that loses yes/no alone is as good as the reference where it answers the same."""
    benchmark, questions = made(TempCompass, tmp_path, copies=6)

    def other(q):
        return "perhaps" if q.categories["format"] == "yes_no" else benchmark.truth(q)

    found = figures(benchmark, questions, benchmark.truth, other)
    assert found["other", "Yes/No QA"]["p"] < 0.01
    assert found["other", "Multi-Choice QA"]["p"] == 1 and found["other", "Multi-Choice QA"]["difference"] == 0
    assert found["reference", "Yes/No QA"]["p"] is None


def test_needles_that_count_whole_are_tested_whole(tmp_path):
    """Each row misses half of the needles, one by one try and the other by all four: as needles they are equals."""
    benchmark, questions = made(VNBench, tmp_path, copies=4)

    def missing(turn, tries):
        def say(q):
            return "" if int(q.id[-1]) % 2 == turn and q.meta["try"] < tries else benchmark.truth(q)

        return say

    found = figures(benchmark, questions, missing(0, 1), missing(1, TRIES))
    assert found["other", "Overall (mean of types, 4 tries)"]["p"] == 1
    assert found["other", "single tries (micro)"]["p"] < 0.2


def test_a_figure_that_the_reference_has_not_is_no_end(tmp_path):
    """No reply of the reference has a letter, so that it has no accuracy of replies with one."""
    benchmark, questions = made(VideoMME, tmp_path)
    found = figures(benchmark, questions, lambda q: "", benchmark.truth)
    (alone,) = [r for r in found.values() if "left out as by the authors" in r["figure"]]
    assert alone["row"] == "other" and alone["value"] == 1
    assert math.isnan(alone["difference"]) and math.isnan(alone["retained"]) and alone["p"] is None


def test_a_figure_of_other_questions_has_no_test(tmp_path):
    benchmark, questions = made(VideoMME, tmp_path)
    found = figures(benchmark, questions, benchmark.truth, lambda q: "" if q is questions[0] else benchmark.truth(q))
    (alone,) = [r for r in found.values() if r["row"] == "other" and "left out as by the authors" in r["figure"]]
    assert alone["n"] == len(questions) - 1 and alone["p"] is None


def test_submissions_of_rows_of_any_name_stay_below_their_folder(tmp_path):
    benchmark, questions = made(VNBench, tmp_path / "data")
    rows = ["reference", "dtd 1/4", "..", "../../up", "/tmp/top", "größe ½"]
    (tmp_path / "out").mkdir()
    given = [replace(answers("reference", benchmark, questions, benchmark.truth), row=row) for row in rows]
    results.write(tmp_path / "out", given, {"b": benchmark})
    found = sorted(p.relative_to(tmp_path / "out") for p in tmp_path.rglob("vnbench.jsonl"))
    assert len(found) == len(rows) and all(p.parts[0] == "submissions" and len(p.parts) == 4 for p in found)
    assert {p.parts[1] for p in found} >= {"dtd 1%2F4", "%2E%2E", "größe ½"}


def test_questions_without_a_published_answer_are_in_no_mean(tmp_path):
    """They were wrong in every group and bar, though in no figure."""
    EgoSchema.miniature(tmp_path)
    benchmark = EgoSchema(EgoSchema.Config(subset=False), tmp_path)
    questions = benchmark.read().questions
    found = results.groups([answers("reference", benchmark, questions, lambda q: q.answer or "A")])
    of = {g["group"]: g for g in found}
    assert (of["all"]["n"], of["all"]["mean"], of["public"]["mean"]) == (8, 1, 1)
    assert of["hidden"]["n"] == 2 and math.isnan(of["hidden"]["mean"])


def test_columns_have_their_types_also_where_nothing_is_in_them(tmp_path):
    """The reference alone has no test, and nobody's reply was read."""
    benchmark, questions = made(VNBench, tmp_path / "data")
    found, grouped = results.write(
        tmp_path, [answers("reference", benchmark, questions, lambda q: "")], {"b": benchmark}
    )
    tables = {name: pq.read_table(tmp_path / f"{name}.parquet") for name in results.SCHEMAS}
    assert str(tables["results"].schema.field("p").type) == "double"
    assert {str(tables["questions"].schema.field(name).type) for name in ("parsed", "reply")} == {"string"}
    assert {str(f.type) for t in tables.values() for f in t.schema}.isdisjoint({"null"})
    assert [list(t.column_names) for t in tables.values()] == [
        list(records[0]) for records in (found, grouped, results.questions([answers("a", benchmark, questions, str)]))
    ], "and no column is left out"


def test_an_evaluation_without_any_figure_has_tables(tmp_path):
    """As the first questions of EgoSchema are, where their answers are hidden."""
    EgoSchema.miniature(tmp_path)
    benchmark = EgoSchema(EgoSchema.Config(subset=False), tmp_path)
    hidden = [q for q in benchmark.read().questions if not q.answer]
    given = [answers("reference", benchmark, hidden, lambda q: "A")]
    found, grouped = results.write(tmp_path, given, {"b": benchmark})
    assert found == [] and len(grouped) == 2 and pq.read_table(tmp_path / "results.parquet").to_pylist() == []
