"""What the documentation shows of formats is what the code reads."""

import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from vxl_lightning.ablation.work import questions
from vxl_lightning.data.schema import Sample
from vxl_lightning.models.alignment import Event, events
from vxl_lightning.registry import installed
from vxl_lightning.reporting.plugins import reference

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (heading and heading not in headings(target)):
            broken.append(link)
    assert not broken


def prose(page: Path) -> str:
    """A page without its listings."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def headings(page: Path) -> set[str]:
    """What ``#`` may lead to: headings in lower case, without punctuation, hyphens for spaces."""
    found = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_record_of_your_own_videos_is_a_test_sample() -> None:
    text = (DOCS / "your_own_videos.md").read_text()
    block = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert block
    sample = Sample.from_record(json.loads(block[1]), "docs")
    assert [(q["task"], q["answer"]) for q in questions(sample)] == [("what", "star"), ("when", "2 s")]
    assert events(sample) == [Event(2.25, ("red", "star"))]


def test_the_reference_lists_what_is_installed() -> None:
    assert (DOCS / "plugins.md").read_text() == reference(), "run: vxl plugin reference > docs/plugins.md"


def test_every_plugin_that_the_systems_name_is_there() -> None:
    names = {p.name for p in installed()}
    rows = [line for line in (DOCS / "systems.md").read_text().splitlines() if line.startswith("| ")][2:]
    told = {name for row in rows for name in re.findall(r"`([a-z][a-z0-9_]+)`", row.split("|")[3])}
    assert told <= names | {"masker"}
    ours = {p.name for p in installed() if p.kind not in ("encoder", "benchmark")}
    assert ours - told <= {"none", "random", "uniform", "pool", "chain", "similarity", "tube", "full"}, (
        "baselines alone"
    )


def written_from(results: str, script: str) -> tuple[Any, str]:
    """What was recorded, and the page that a script of the benchmarks writes from it."""
    spec = spec_from_file_location(script, ROOT / "benchmarks" / f"{script}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    recorded = json.loads((ROOT / "benchmarks" / "results" / f"{results}.json").read_text())
    return recorded, module.page(recorded)


def test_the_page_that_compares_systems_is_what_was_recorded() -> None:
    _, page = written_from("systems", "_systems_page")
    assert (DOCS / "systems_compared.md").read_text() == page, "run benchmarks/_systems_page.py"


def test_the_page_on_costs_is_what_was_recorded() -> None:
    _, page = written_from("compressors", "_costs_page")
    assert (DOCS / "costs.md").read_text() == page, "run benchmarks/_costs_page.py"


def test_the_page_on_parity_is_what_was_recorded() -> None:
    recorded, page = written_from("parity", "_parity_page")
    assert (DOCS / "parity.md").read_text() == page, "run benchmarks/parity.py; it writes both"
    assert all(row["ok"] for row in recorded["comparisons"])
