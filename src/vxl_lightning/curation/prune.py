"""A recipe from its configuration to a dataset: the stages in their order, cheap ones first.

Killed at any moment and asked for again, it goes on with what is missing, and leaves the bytes that an
uninterrupted run would have left.
"""

import os
import shutil
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from vxl_lightning.curation import judging
from vxl_lightning.curation.annotations import annotation_files, check_paths, ingest
from vxl_lightning.curation.conversation import CONVERSATION, conversation
from vxl_lightning.curation.engine import Runner, Silent, Watcher
from vxl_lightning.curation.exclusions import contaminated, load_exclusions
from vxl_lightning.curation.index import Floats, Index, Ints
from vxl_lightning.curation.overrides import load_overrides
from vxl_lightning.curation.plan import make_plan
from vxl_lightning.curation.probe import probe
from vxl_lightning.curation.recipe import NecessityRules, Recipe, Rule
from vxl_lightning.curation.schema import FRAMES, PROBE, read_table
from vxl_lightning.curation.select import Columns, select, token_cost
from vxl_lightning.curation.strata import Strata, make_strata
from vxl_lightning.curation.verdicts import QUARANTINE, Flags, Verdicts
from vxl_lightning.curation.work import Work
from vxl_lightning.curation.write import Writing, write_planned
from vxl_lightning.data.files import sha256_of
from vxl_lightning.errors import UserError


@dataclass
class State:
    """What the stages have found so far.

    Attributes:
        index: the samples and their media.
        verdicts: what the rules say of them.
        forced: ``[N]`` samples that an override keeps.
        signature: of the media files on the disk.
        probed: the `PROBE` table of the media that are there.
        digests: ``[M]`` SHA-256 of every media; None of those that could not be read.
        duration: ``[M]`` seconds.
        conversation: path of the `CONVERSATION` table.
        frames: the `FRAMES` table of the media that were looked at.
        duplicates: the `DUPLICATES` among the media.
        weight: ``[N]`` what the necessity ladder makes of a sample's worth.
        necessity: ``[N]`` nats that the video gains; NaN where it was not measured.
        tokens: ``[N]`` what training on a sample costs.
        strata: of all samples.
        eligible: ``[N]`` samples that passed every rule, before the budget.
    """

    index: Index
    verdicts: Verdicts
    forced: Flags
    signature: str
    probed: pa.Table
    digests: list[str | None]
    duration: Floats
    conversation: Path
    frames: pa.Table = field(default_factory=FRAMES.empty_table)
    duplicates: pa.Table = field(default_factory=judging.DUPLICATES.empty_table)
    weight: Floats = field(default_factory=lambda: np.ones(0))
    necessity: Floats = field(default_factory=lambda: np.ones(0))
    tokens: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    strata: Strata | None = None
    eligible: Flags = field(default_factory=lambda: np.zeros(0, dtype=bool))


def prune(recipe: Recipe, watcher: Watcher | None = None) -> Path:
    """Run a recipe, or what is left of it.

    Args:
        recipe: what to do.
        watcher: told of the progress.

    Returns:
        The folder of the dataset: shards, the tables of every decision, ``report.html`` and ``dataset.json``.

    Raises:
        UserError: annotations or media that are not there, settings that do not fit, or another dataset in ``out``.
    """
    from vxl_lightning.curation.publish import is_published, publish

    check(recipe)
    sources = source_hashes(recipe)
    out = Path(recipe.out)
    if is_published(recipe, sources):
        return out
    # Workers may run in another folder; what is published names things as the recipe does.
    here = replace(
        recipe,
        out=str(out.resolve()),
        work=str(work_folder(recipe).resolve()),
        media_root=str(Path(recipe.media_root).resolve()),
    )
    with Runner(recipe.engine, recipe.workers or os.cpu_count() or 1, watcher or Silent()) as runner:
        work = Work(work_folder(here), runner)
        state = decide(here, work, sources)
        choose(here, state)
        writing, shards = _planned(here, work, state)
        _write(work, writing, shards)
        publish(recipe, sources, work, state, writing, shards)
    return out


def work_folder(recipe: Recipe) -> Path:
    """The recipe's folder of finished stages."""
    return Path(recipe.work or f"{recipe.out.rstrip('/')}.work")


def source_hashes(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of every annotation file, by the name the recipe gives it."""
    return {file.name: sha256_of(file.path) for file in annotation_files(recipe)}


def check(recipe: Recipe) -> None:
    """Refuse what cannot be, before anything is read.

    Raises:
        UserError: a key that is missing or does not fit another.
    """
    if not recipe.out:
        raise UserError("out is empty; name the folder of the result, such as out=runs/pruned")
    if not recipe.media_root:
        raise UserError("media_root is empty; name the folder that media paths are relative to")
    root, out = Path(recipe.media_root).resolve(), Path(recipe.out).resolve()
    if root.is_relative_to(out):
        raise UserError(f"out={recipe.out} holds media_root={recipe.media_root}; name another folder")
    load_exclusions(recipe.contamination)


def decide(recipe: Recipe, work: Work, sources: dict[str, str]) -> State:
    """Every rule but the budget: what is broken, double, contaminated, redundant or not needed."""
    state = _read(recipe, work, sources)
    index, verdicts, rules = state.index, state.verdicts, recipe.duplicates
    judging.odd_files(verdicts, index, state.probed, recipe.probe)
    judging.conversations(verdicts, state.conversation, recipe.conversation)
    state.duplicates = judging.exact_duplicates(verdicts, index, state.conversation, state.digests, rules)
    if excluded := load_exclusions(recipe.contamination):
        failed, faults = contaminated(index, state.conversation, state.digests, excluded)
        verdicts.find("contamination", "contamination", Rule(mode=recipe.contamination.mode), failed, faults)
    _look(recipe, work, state)
    _ladder(recipe, work, state)
    return state


def _read(recipe: Recipe, work: Work, sources: dict[str, str]) -> State:
    """Annotations, the files they name, and what is broken of both."""
    root = Path(recipe.media_root)
    key = (sources, list(recipe.datasets), recipe.seed)
    samples = work.path("samples", *key).with_suffix(".parquet")
    # Both are written by one call: the one that is there last tells that both are.
    named = work.table("named", lambda path: ingest(recipe, samples, path), *key)
    media, signature = check_paths(root, read_table(named))
    index = Index(samples, work.put("media", media))
    forced, unwanted = load_overrides(recipe.overrides, index)
    verdicts = Verdicts(len(index), forced)
    judging.broken_records(verdicts, index)
    judging.broken_media(verdicts, index, "media", media)
    if unwanted.any():
        verdicts.find("override", "override", Rule(), unwanted)
    talk = work.stage("conversation", conversation, samples, CONVERSATION, [])
    sound = media.filter(media["problem"].is_null())
    costs = [size + 1e5 for size in sound["bytes"].to_pylist()]
    function = partial(probe, settings=recipe.probe, media_root=recipe.media_root)
    inputs = [recipe.probe, signature, str(root.resolve())]
    probed = read_table(work.stage("probe", function, work.put("to-probe", sound), PROBE, inputs, costs, 32))
    judging.broken_media(verdicts, index, "probe", probed)
    digests: list[str | None] = [None] * len(index.paths)
    for place, digest in zip(index.places(probed).tolist(), probed["sha256"].to_pylist(), strict=True):
        digests[place] = digest
    state = State(index, verdicts, forced, signature, probed, digests, index.aligned(probed, "duration"), talk)
    state.weight, state.necessity = np.ones(len(index)), np.full(len(index), np.nan)
    return state


def _look(recipe: Recipe, work: Work, state: State) -> None:
    """What videos show: damage that only decoding finds, stillness, redundancy, near-duplicates."""
    rules = recipe.redundancy
    near = recipe.duplicates.near_video
    clustered = recipe.select.strategy == "stratified" and recipe.select.clusters > 1
    if all(rule.mode == "off" for rule in (rules.static, rules.redundancy, near)) and not clustered:
        return
    index, verdicts = state.index, state.verdicts
    places = index.places(state.probed)
    chosen = state.probed.append_column("kind", index.table["kind"].take(pa.array(places)))
    chosen = chosen.filter(pa.array(index.used(verdicts.kept)[places]))
    sizes = zip(*(chosen[name].to_pylist() for name in ("frames", "width", "height")), strict=True)
    costs = [frames * width * height / 1e6 + 1 for frames, width, height in sizes]
    table = work.put("to-look-at", chosen.select(["media", "kind", "keyframe_times", "duration"]))
    from vxl_lightning.curation.looking import looking

    function = partial(looking, settings=recipe.frames, media_root=recipe.media_root)
    inputs = [recipe.frames, state.signature, str(Path(recipe.media_root).resolve())]
    state.frames = read_table(work.stage("frames", function, table, FRAMES, inputs, costs, 8))
    judging.broken_media(verdicts, index, "frames", state.frames)
    motion, unique = (index.spread(index.aligned(state.frames, name)) for name in ("motion", "unique_ratio"))
    verdicts.limit("static", "redundancy", rules.static, motion, higher_is_worse=False)
    verdicts.limit("redundancy", "redundancy", rules.redundancy, unique, higher_is_worse=False)
    if near.mode != "off":
        from vxl_lightning.curation.near import near_videos

        looked = state.frames.filter(pa.array(index.used(verdicts.kept)[index.places(state.frames)]))
        lasts = dict(zip(state.probed["media"].to_pylist(), state.probed["duration"].to_pylist(), strict=True))
        found = near_videos(looked, recipe.duplicates, recipe.seed, lasts)
        more = judging.near_duplicates(verdicts, index, looked, found, recipe.duplicates)
        state.duplicates = pa.concat_tables([state.duplicates, more])


def _ladder(recipe: Recipe, work: Work, state: State) -> None:
    """Whether answers need the video: questions alone first, and the rest for those that are left."""
    rules = recipe.necessity
    if rules.blind.mode == "off" and rules.misaligned.mode == "off":
        return
    from vxl_lightning.curation import necessity

    index, verdicts = state.index, state.verdicts
    inputs = [rules, _model_hash(rules), state.signature, recipe.seed]
    table = work.rows("to-ask-blind", index, verdicts.kept)
    path = work.stage("blind", partial(necessity.blind, settings=rules), table, necessity.BLIND, inputs, None, 64)
    alone = judging.column(path, "blind", len(index))
    verdicts.limit("blind", "necessity", rules.blind, alone, higher_is_worse=False)
    if not rules.model:
        return
    table = work.rows("to-ask", index, verdicts.kept)
    function = partial(necessity.ladder, settings=rules, media_root=Path(recipe.media_root), seed=recipe.seed)
    path = work.stage("ladder", function, table, necessity.LADDER, inputs, None, 64)
    judging.broken_rows(verdicts, "ladder", path)
    blind, one, few, shuffled, full = (judging.column(path, name, len(index)) for name in necessity.LOSSES)
    state.necessity, state.weight, _, _ = necessity.weights(blind, one, few, shuffled, full, rules)
    verdicts.limit("misaligned", "necessity", rules.misaligned, state.necessity, higher_is_worse=False)


def _model_hash(rules: NecessityRules) -> dict[str, str]:
    """The files of the models that are asked."""
    from vxl_lightning.models.language import language_model_folder

    folders = [Path(rules.model)] if rules.model else []
    if folders and not folders[0].is_dir():
        raise UserError(f"necessity.model={rules.model!r} is no folder; give one that 'vxl train' or an ablation left")
    if rules.language_model:
        folders.append(language_model_folder(rules.language_model))
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    return {f"{place} {path.name}": sha256_of(path) for place, path in enumerate(files)}


def choose(recipe: Recipe, state: State) -> None:
    """Spread the budget over what passed every rule."""
    index, verdicts, settings = state.index, state.verdicts, recipe.select
    duration = index.spread(state.duration)
    state.tokens = token_cost(duration, settings)
    clusters = settings.clusters if settings.strategy == "stratified" else 1
    state.strata = make_strata(index, state.conversation, state.frames, duration, clusters, recipe.seed)
    unique = np.nan_to_num(index.spread(index.aligned(state.frames, "unique_ratio")), nan=1.0)
    # Nats that the video gains, where they were measured; what shows much is worth more than what repeats itself.
    needed = np.where(np.isnan(state.necessity), 1.0, np.maximum(state.necessity, 0.0))
    value = state.weight * needed * unique
    state.eligible = verdicts.kept
    columns = Columns(
        state.eligible, state.forced, index.media, state.tokens, duration, state.strata.index, value, index.questions
    )
    total = int(state.tokens[verdicts.state != QUARANTINE].sum())
    selected = select(columns, settings, total, recipe.seed)
    if settings.strategy == "stratified" and settings.questions_per_video:
        verdicts.find("questions_per_video", "select", Rule(), selected.capped)
    if settings.strategy != "all":
        verdicts.find("budget", "select", Rule(), ~selected.kept)


def _planned(recipe: Recipe, work: Work, state: State) -> tuple[Writing, int]:
    """The plan, and how many shards it has."""
    verdicts = state.verdicts
    kept = verdicts.kept
    if not kept.any():
        raise UserError(
            "nothing is left to write: every sample was dropped or quarantined; "
            + ", ".join(f"{a.rule}: {a.failed}" for a in verdicts.applied if a.failed)
        )
    path = work.folder / "plan-new.parquet"
    shards = make_plan(state.index, kept, state.digests, state.duration, recipe.output, path)
    plan = work.keep("plan", path)
    out = Path(recipe.out)
    records = work.path("shards", plan.name, state.index.samples.name, str(out.resolve()), recipe.output.frame_index)
    root = Path(recipe.media_root)
    return Writing(plan, state.index.samples, root, out, records, recipe.output.frame_index), shards


def _write(work: Work, writing: Writing, shards: int) -> None:
    """Write the planned shards that are not there, and remove what an older plan or a killed writer left."""
    writing.out.mkdir(parents=True, exist_ok=True)
    if any(writing.out.glob("shard-*.tar")) and not any(work.folder.glob("shards-*")):
        raise UserError(f"out={writing.out}: holds shards that this recipe did not write; name another folder")
    writing.records.mkdir(parents=True, exist_ok=True)
    names = {f"shard-{number:06d}.tar" for number in range(shards)}
    shutil.rmtree(writing.out / ".copy", ignore_errors=True)
    for stale in [*writing.out.glob("shard-*.tar"), *writing.out.glob(".*.tar"), *writing.out.glob(".*.parquet")]:
        if stale.name not in names:
            stale.unlink()
    plan = read_table(writing.plan, ["shard", "bytes"])
    sizes = np.bincount(plan["shard"].to_numpy(), plan["bytes"].to_numpy(), shards)
    done = [writing.done(number) for number in range(shards)]
    calls = [(write_planned, (writing, number)) for number in range(shards)]
    start = time.monotonic()
    work.runner.run("write", calls, sizes.tolist(), [1] * shards, done)
    if not all(done):
        written = int(sizes[~np.array(done)].sum())
        work.spent["write"] = (written, time.monotonic() - start)
