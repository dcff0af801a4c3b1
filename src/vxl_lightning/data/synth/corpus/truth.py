"""Judge what a pruning recipe decided against what was planted.

*Planted* for a rule are the records whose truth names it and says drop or quarantine. One of them is *found* when it is
dropped or quarantined as truth says, whichever rule came first: rules run in order, and a record may fail two. Recall
is found of planted. What a rule *took* are the records whose decision names it; taking one is *right* when truth says
that it goes, by whatever rule. Precision is right of taken: records that are to be kept (clean, odd but usable, or only
weighed) make it worse. What is rightly quarantined counts for ``damaged`` or ``malformed``, as truth says, because a
recipe names the stage that quarantined; wrong quarantines stand under that name.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vxl_lightning.curation.schema import read_table
from vxl_lightning.errors import UserError

ALL = "all"
GONE = ("drop", "quarantine")
_COLUMNS = ("source", "record_number", "decision", "rule")


@dataclass(frozen=True)
class Score:
    """How well one rule did; ``all`` sums the rules up.

    Attributes:
        rule: its name, in truth or in the decisions.
        planted: records that it should take.
        found: those of them that are gone as they should.
        taken: records that it took.
        right: those of them that truth lets go.
    """

    rule: str
    planted: int
    found: int
    taken: int
    right: int

    @property
    def recall(self) -> float | None:
        """Found of planted; None where nothing was planted."""
        return self.found / self.planted if self.planted else None

    @property
    def precision(self) -> float | None:
        """Right of taken; None where nothing was taken."""
        return self.right / self.taken if self.taken else None


def score(decisions: pa.Table | str | Path, truth: str | Path) -> list[Score]:
    """Recall and precision of every rule.

    Args:
        decisions: a `DECISIONS` table, or the path of one.
        truth: path of ``truth.jsonl``.

    Returns:
        A row for every rule of either side, in alphabetical order, and last `ALL`.

    Raises:
        UserError: the decisions do not cover the records of the truth, each once.
    """
    table = decisions if isinstance(decisions, pa.Table) else read_table(Path(decisions), _COLUMNS)
    decided = {}
    for row in table.select(_COLUMNS).to_pylist():
        decided[Path(row["source"]).name, row["record_number"]] = (row["decision"], row["rule"])
    records = {(Path(r["source"]).name, r["record_number"]): r for r in read_truth(truth)}
    if len(decided) != table.num_rows or decided.keys() != records.keys():
        raise UserError(
            f"{truth}: tells of {len(records)} records and there are {table.num_rows} decisions, "
            f"about {len(decided.keys() & records.keys())} of them; every record must be decided once"
        )
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for key, record in records.items():
        expected, (decision, by) = record["expected"], decided[key]
        if expected == decision == "quarantine":
            by = record["rule"]
        for rule in (record["rule"], ALL) if expected in GONE else ():
            counts[rule].update(["planted", "found"] if decision == expected else ["planted"])
        for rule in (by, ALL) if decision in GONE else ():
            counts[rule].update(["taken", "right"] if expected in GONE else ["taken"])
    order = sorted(counts, key=lambda rule: (rule == ALL, rule))
    return [Score(rule, *(counts[rule][c] for c in ("planted", "found", "taken", "right"))) for rule in order]


def read_truth(path: str | Path) -> list[dict[str, Any]]:
    """The lines of ``truth.jsonl`` or ``media_truth.jsonl``.

    Raises:
        UserError: no such file.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; 'vxl data synth corpus' writes it")
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
