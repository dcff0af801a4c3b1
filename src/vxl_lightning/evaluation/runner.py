"""An evaluation from its configuration to its tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vxl_lightning import registry
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation import results
from vxl_lightning.evaluation.answerer import Answerer
from vxl_lightning.evaluation.asking import Ledger, ask
from vxl_lightning.evaluation.base import Benchmark, Problem, Question
from vxl_lightning.evaluation.config import EvaluationConfig
from vxl_lightning.evaluation.models import answerers, provenances
from vxl_lightning.evaluation.replies import hashed
from vxl_lightning.reporting.browser import Videos
from vxl_lightning.reporting.evaluation import write_evaluation_report
from vxl_lightning.reporting.manifest import manifest, write_manifest


@dataclass(frozen=True)
class Chosen:
    """A benchmark, the questions of it that are asked, what cannot be asked, and the plugin it comes from."""

    name: str
    benchmark: Benchmark
    questions: list[Question]
    problems: list[Problem]
    provenance: Mapping[str, str] = field(default_factory=dict)


def choose(config: EvaluationConfig) -> list[Chosen]:
    """Read every benchmark and see what is missing, before anything runs.

    Raises:
        UserError: no benchmark, an unknown one, one named twice, no folder of it, or settings that it cannot be asked
            with.
    """
    if not config.benchmarks:
        names = ", ".join(p.name for p in registry.installed("benchmark"))
        raise UserError(f"benchmarks is empty; name some of {names}")
    if not config.data_root or not Path(config.data_root).is_dir():
        raise UserError(
            f"data_root={config.data_root!r} is not a folder; give the one that holds a folder of each benchmark"
        )
    found: dict[str, Chosen] = {}
    for one in config.benchmarks:
        spec = {"name": one} if isinstance(one, str) else dict(one)
        cls, settings = registry.config("benchmark", spec)
        given = [f"{key}={value}" for key, value in spec.items() if key != "name"]
        name = " ".join([spec["name"], *given])
        if name in found:
            raise UserError(f"benchmarks names {name} twice; give each once, or with other parameters")
        benchmark = cls(settings, _folder(cls, Path(config.data_root)))
        found[name] = _read(name, benchmark, config, registry.provenance("benchmark", spec["name"]))
        if config.answering == "likelihood" and any(q.subtitles for q in found[name].questions):
            raise UserError(
                f"benchmark {name}: answering=likelihood asks questions alone, without the subtitles that its figures "
                "would name; set answering=generate, or leave subtitles out"
            )
    return list(found.values())


def _folder(cls: Any, root: Path) -> Path:
    folder: Path = root / cls.folder_name
    if not folder.is_dir():
        files = "; ".join(" ".join(line.split()) for line in cls.layout.splitlines())
        raise UserError(f"{folder}: no such folder; {cls.title} is laid out in it as: {files}")
    return folder


def _read(name: str, benchmark: Benchmark, config: EvaluationConfig, provenance: Mapping[str, str]) -> Chosen:
    listing = benchmark.read()
    asked = _first(listing.questions, config.limit)
    absent = benchmark.missing(asked)
    gone = {p.where for p in absent}
    there = [q for q in asked if q.video not in gone and q.subtitles not in gone]
    return Chosen(name, benchmark, there, [*listing.problems, *absent], provenance)


def _first(questions: Sequence[Question], limit: int) -> list[Question]:
    """The first ``limit`` questions, and all of their bundles, which count only whole; all questions where it is 0."""
    first = questions[: limit or None]
    bundles = {q.bundle for q in first if q.bundle}
    return [*first, *(q for q in questions[len(first) :] if q.bundle in bundles)]


def _notes(config: EvaluationConfig, chosen: Sequence[Chosen]) -> list[str]:
    """What a reader of the table must know: that not all was asked."""
    lost = {c.name: sum(p.questions for p in c.problems) for c in chosen}
    told = [
        f"{name}: {n:,} questions could not be asked and are left out; manifest.json has why."
        for name, n in lost.items()
        if n
    ]
    limit = f"Only the first {config.limit:,} questions of each benchmark were asked, and what counts with them."
    return [limit, *told] if config.limit else told


def run(
    config: EvaluationConfig,
    chosen: list[Chosen] | None = None,
    rows: Mapping[str, Answerer] | None = None,
    tell: Callable[[str, int], None] = lambda name, done: None,
) -> tuple[Path, Ledger]:
    """Ask every question of every row, as far as it was not asked before, and write tables and report.

    Replies are stored one by one: run again after an interruption, it goes on where it was, and the tables are those
    of an uninterrupted run.

    Args:
        config: what is asked, and of whom.
        chosen: `choose` of it, where that has been done.
        rows: `answerers` of it, where there are others.
        tell: is called with a benchmark's name and the number of replies whenever some are there.

    Returns:
        The folder of the results, and where the time went.

    Raises:
        UserError: see `choose` and `answerers`; nothing is left to ask.
    """
    chosen = choose(config) if chosen is None else chosen
    empty = [c.name for c in chosen if not c.questions]
    if empty:
        raise UserError(f"benchmark {empty[0]}: no question can be asked; see what is missing")
    if rows is None:
        rows = answerers(config.model, config.rows, config.max_new_tokens, precision=config.precision)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    ledger, judged = Ledger(), []
    for c in chosen:
        replies = ask(c.benchmark, c.questions, rows, config, ledger, lambda done, name=c.name: tell(name, done))  # type: ignore[misc]
        judged += [results.Answers.of(row, c.name, c.benchmark, found) for row, found in replies.items()]
    found, grouped = results.write(out, judged, {c.name: c.benchmark for c in chosen}, _notes(config, chosen))
    data = {c.name: hashed([asdict(q) for q in c.questions]) for c in chosen}
    problems = {c.name: [f"{p.where}: {p.reason} ({p.questions} questions)" for p in c.problems] for c in chosen}
    plugins = [*(c.provenance for c in chosen if c.provenance), *provenances(config.rows)]
    content = manifest(config, [], plugins, data)
    told = {"problems": problems, "failed_videos": ledger.failed, "refused": ledger.refused}
    write_manifest(out / "manifest.json", content | told)
    folders = {c.name: c.benchmark.folder for c in chosen}
    write_evaluation_report(
        out / "report.html",
        name=config.name,
        results=found,
        groups=grouped,
        questions=results.questions(judged),
        costs=results.costs(judged),
        manifest=content,
        problems={c.name: c.problems for c in chosen},
        failed=ledger.failed,
        videos=Videos(folders, ledger.durations, config.pictures),
    )
    return out, ledger
