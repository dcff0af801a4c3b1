"""Read-outs: what a model's tokens name by themselves, with no language model to ask.

They tell a miss apart: a needle that no token names was lost by the compressor, one that is named but answered
wrongly was not read by the language model.
"""

from collections.abc import Sequence
from typing import Any

from vxl_lightning.data.schema import Sample
from vxl_lightning.models.alignment import events, group_at, group_reach
from vxl_lightning.models.prefix import Projected
from vxl_lightning.models.video_lm import VideoLM

KEYS = ("colour", "shape")


def options(samples: Sequence[Sample]) -> dict[str, list[str]]:
    """The words that needles are described with, by key: what a read-out chooses among."""
    needles = [needle for sample in samples for needle in sample.meta.get("needles") or []]
    return {key: sorted({str(needle[key]) for needle in needles}) for key in KEYS}


def read_outs(
    model: VideoLM, projected: Projected, samples: Sequence[Sample], choices: dict[str, list[str]]
) -> list[list[dict[str, Any]]]:
    """Three read-outs a needle: its colour and its shape in its group, and the time of the group that names both best.

    Args:
        projected: the samples' videos.
        choices: see `options`.

    Returns:
        For every video, rows with ``task``, ``question``, ``choices``, ``answer`` and ``prediction``.
    """
    words = [word for key in KEYS for word in choices[key]]
    column = {word: i for i, word in enumerate(words)}
    size = model.prompt.frames_per_time
    table = group_reach(model, projected, words).unflatten(0, (len(samples), -1))
    rows: list[list[dict[str, Any]]] = []
    for reach, times, sample in zip(table, projected.times, samples, strict=True):
        starts = times[::size]
        names = [f"{t:g} s" for t in starts.tolist()]
        found: list[dict[str, Any]] = []
        for event in events(sample):
            at, said = group_at(starts, event.seconds), " ".join(event.words)
            for key, word in zip(KEYS, event.words, strict=True):
                seen = reach[at, [column[w] for w in choices[key]]]
                found.append(_row(key, f"{key} at {names[at]}", choices[key], word, int(seen.argmax())))
            both = reach[:, [column[w] for w in event.words]].sum(1)
            found.append(_row("when", f"when is the {said}", names, names[at], int(both.argmax())))
        rows.append(found)
    return rows


def _row(task: str, question: str, choices: list[str], answer: str, best: int) -> dict[str, Any]:
    return {
        "task": f"read {task}", "question": question, "choices": choices, "answer": answer, "prediction": choices[best]
    }  # fmt: skip
