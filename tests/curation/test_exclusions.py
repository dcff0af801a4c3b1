import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vxl_lightning.curation.contamination import qa_hash
from vxl_lightning.curation.exclusions import load_exclusions
from vxl_lightning.curation.prune import prune
from vxl_lightning.curation.recipe import ContaminationRules, Recipe
from vxl_lightning.data.files import sha256_of
from vxl_lightning.errors import UserError

from .conftest import record


def dropped(out: Path) -> dict[str, str]:
    rows = pq.read_table(out / "decisions.parquet").to_pylist()
    return {row["id"]: row["detail"] for row in rows if row["rule"] == "contamination"}


def test_what_a_benchmark_holds_is_dropped_and_says_why(
    recipe: Callable[..., Recipe], corpus: Path, tmp_path: Path
) -> None:
    lists = {
        "ids.txt": "s2-1\nv4\n# a comment\n\n",
        "videos.txt": sha256_of(corpus / "media/v3.mp4") + "\n",
        "questions.txt": qa_hash("What is number 2 of 1?", "answer 2") + "\n",
        "benchmark.json": json.dumps([record("x", "y.mp4", "WHAT  is number 1 of 5?", "Answer 5")]),
    }
    for name, content in lists.items():
        (tmp_path / name).write_text(content)
    rules = ContaminationRules(
        ids=[str(tmp_path / "ids.txt")], video_hashes=[str(tmp_path / "videos.txt")],
        qa_hashes=[str(tmp_path / "questions.txt")], annotations=[str(tmp_path / "benchmark.json")],
    )  # fmt: skip
    found = dropped(prune(recipe(contamination=rules)))
    assert set(found) == {"s2-1", "s4-0", "s4-1", "s4-2", "s3-0", "s3-1", "s3-2", "s1-2", "s5-1"}
    assert "video_hashes" in found["s3-0"] and "named in ids" in found["s4-0"]
    assert "its id" in found["s2-1"] and "question" in found["s1-2"]


def test_a_copy_of_an_excluded_video_under_another_name_is_excluded(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    (tmp_path / "ids.txt").write_text("copy\n")  # v0.mp4 has the same bytes and comes first
    found = dropped(prune(recipe(contamination=ContaminationRules(ids=[str(tmp_path / "ids.txt")]))))
    assert {"s0-0", "s0-1", "s0-2", "other question"} <= set(found)


@pytest.mark.parametrize(("content", "message"), [(None, "no such list"), ("abc\n", "no SHA-256 digest")])
def test_lists_that_cannot_be_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "list.txt"
    if content:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_exclusions(ContaminationRules(video_hashes=[str(path)]))
