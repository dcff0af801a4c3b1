"""Records that are wrong about healthy clips: known, guessed, told of another clip, repeated or malformed."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from vxl_lightning.data.synth.corpus.blind import blind_questions
from vxl_lightning.data.synth.corpus.clips import Clip
from vxl_lightning.data.synth.corpus.entries import CLEAN, Truth, again, entry
from vxl_lightning.data.synth.corpus.malformed import FAULTS, FLAWS, NOT_JSON, malformed
from vxl_lightning.data.synth.corpus.misaligned import contradicting
from vxl_lightning.data.synth.corpus.state import Corpus
from vxl_lightning.data.synth.writing import generator_for
from vxl_lightning.errors import UserError

_BLIND = Truth("blind", "drop", "blind")
_MISALIGNED = Truth("misaligned", "drop", "misaligned")


def ask(corpus: Corpus) -> None:
    """Add the records; a clean record is the model of one of them at most."""
    config, records = corpus.config, corpus.entries
    clean = [i for i, e in enumerate(records) if e.truth is CLEAN]
    unused = iter([clean[i] for i in corpus.order("chosen", len(clean))])
    for i in _choose(unused, config.contaminated, "contaminated"):
        records[i] = corpus.exclusions.by_id(records[i])
    for i in _choose(unused, config.exact_qa, "exact_qa"):
        repeated = again(records[i], "again", Truth("exact_qa", "drop", "exact_qa", records[i].id))
        records.append(replace(repeated, late=True))
    for kind in (*FAULTS, *FLAWS, NOT_JSON):
        chosen = _choose(unused, config.malformed, "malformed")
        records += [malformed(records[i], kind, number) for number, i in enumerate(chosen)]
    for number, clip in enumerate(_hosts(corpus, "benchmark", config.contaminated)):
        records.append(corpus.exclusions.by_question(clip, number, in_benchmark=False))
        records.append(corpus.exclusions.by_question(clip, number, in_benchmark=True))
    questions = blind_questions(config.blind, generator_for("corpus", config.seed, "blind"))
    for number, (clip, question) in enumerate(zip(_hosts(corpus, "blind", config.blind), questions, strict=True)):
        records.append(entry(f"{clip.name}-b{number}", clip, question, _BLIND))
    generator = generator_for("corpus", config.seed, "misaligned")
    for number, (clip, donor, question) in enumerate(contradicting(corpus.clips, config.misaligned, generator)):
        told = replace(donor, media=clip.media, source=clip.source)
        records.append(entry(f"{clip.name}-m{number}", told, question, _MISALIGNED))


def _choose(unused: Iterator[int], count: int, what: str) -> list[int]:
    chosen = list(islice(unused, count))
    if len(chosen) < count:
        raise UserError(f"{what}={count}: too few clean records are left for it; set clips higher or {what} lower")
    return chosen


def _hosts(corpus: Corpus, what: str, count: int) -> list[Clip]:
    """Clean clips in chance order, again from the first where there are too few."""
    order = corpus.order(what, len(corpus.clips))
    return [corpus.clips[order[i % len(order)]] for i in range(count)]
