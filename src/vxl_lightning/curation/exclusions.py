"""Samples that benchmarks hold: by id, by the bytes of the video, by question and answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vxl_lightning.curation.contamination import qa_hash
from vxl_lightning.curation.index import Index
from vxl_lightning.curation.recipe import ContaminationRules
from vxl_lightning.curation.schema import iterate
from vxl_lightning.curation.verdicts import Fault, Flags
from vxl_lightning.data.chat import exchanges
from vxl_lightning.data.schema import read_annotations
from vxl_lightning.errors import UserError


@dataclass(frozen=True)
class Exclusions:
    """What must not be trained on: ids and media names, SHA-256 digests of media, digests of questions and answers."""

    ids: frozenset[str]
    videos: frozenset[str]
    questions: frozenset[bytes]

    def __bool__(self) -> bool:
        return bool(self.ids or self.videos or self.questions)


def load_exclusions(rules: ContaminationRules) -> Exclusions:
    """Read the lists of a recipe.

    Raises:
        UserError: a missing file, or a line that is no digest.
    """
    questions = {bytes.fromhex(d[:32]) for d in _digests(rules.qa_hashes)}
    for file in rules.annotations:
        for sample in read_annotations(file):
            questions |= {bytes.fromhex(qa_hash(p.question, p.answer)[:32]) for p in exchanges(sample)}
    return Exclusions(frozenset(_lines(rules.ids)), frozenset(_digests(rules.video_hashes)), frozenset(questions))


def _lines(files: Iterable[str]) -> Iterable[str]:
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"contamination: no such list {file!r}; give a text file with one entry a line")
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            if (entry := line.strip()) and not entry.startswith("#"):
                yield entry


def _digests(files: list[str]) -> Iterable[str]:
    for entry in _lines(files):
        if len(entry) != 64 or set(entry.lower()) - set("0123456789abcdef"):
            raise UserError(
                f"contamination: {entry[:80]!r} is no SHA-256 digest; one of 64 hex digits a line is expected"
            )
        yield entry.lower()


def contaminated(
    index: Index, conversation: Path, digests: list[str | None], excluded: Exclusions
) -> tuple[Flags, dict[int, Fault]]:
    """``[N]`` samples that are excluded, and why.

    Args:
        index: the samples.
        conversation: path of the `CONVERSATION` table.
        digests: ``[M]`` SHA-256 of every media.
        excluded: what benchmarks hold.
    """
    faults: dict[int, Fault] = {}
    by_video = np.array([d in excluded.videos for d in digests], dtype=bool)
    by_name = np.array([bool(_names(path) & excluded.ids) for path in index.paths], dtype=bool)
    # A copy under another name is the same video.
    named = {d for d, hit in zip(digests, by_name, strict=True) if hit and d is not None}
    by_name |= np.array([d in named for d in digests], dtype=bool)
    failed = np.zeros(len(index), dtype=bool)
    for why, flags in (("its media file is in video_hashes", by_video), ("its media is named in ids", by_name)):
        hit = index.of_media(flags)
        faults |= {int(row): Fault(detail=why) for row in np.flatnonzero(hit & ~failed)}
        failed = failed | hit
    hashes = pa.array(sorted(excluded.questions), pa.binary(16))
    names = pa.array(sorted(excluded.ids), pa.string())
    for batch in iterate(conversation, ["row", "questions"]):
        hit = pc.is_in(batch["questions"].flatten(), hashes)
        rows = pc.filter(pc.take(batch["row"], pc.list_parent_indices(batch["questions"])), hit)
        _add(failed, faults, rows.to_pylist(), "its question and answer are in qa_hashes or annotations")
    begin = 0
    for batch in iterate(index.samples, ["id", "sample_id"]):
        hit = pc.or_(pc.is_in(batch["id"], names), pc.is_in(batch["sample_id"], names))
        _add(failed, faults, (begin + np.flatnonzero(hit.to_numpy(zero_copy_only=False))).tolist(), "its id is in ids")
        begin += batch.num_rows
    return failed, faults


def _add(failed: Flags, faults: dict[int, Fault], rows: list[int], why: str) -> None:
    for row in rows:
        if not failed[row]:
            faults[row] = Fault(detail=why)
            failed[row] = True


def _names(path: str) -> set[str]:
    """The ways a benchmark may write a path: with and without its folder and its suffix."""
    pure = PurePosixPath(path)
    return {path, pure.name, pure.stem, str(pure.with_suffix(""))}
