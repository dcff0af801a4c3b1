"""Questions that one clip answers, asked about another clip which answers them otherwise."""

from collections.abc import Sequence

import torch

from vxl_lightning.data.synth.corpus.clips import Clip
from vxl_lightning.data.synth.questions import Needle, Question


def answer_of(question: Question, needles: Sequence[Needle]) -> str | None:
    """What a clip with these needles answers, for questions about what, colour and count; None where it shows nothing
    that is asked about."""
    words = question.text.rstrip("?").split()
    if question.task == "count":
        return str(len(needles))
    if question.task == "what":
        return next((n.shape for n in needles if n.colour in words), None)
    if question.task == "colour":
        return next((n.colour for n in needles if n.shape in words), None)
    return None


def contradicting(clips: Sequence[Clip], count: int, generator: torch.Generator) -> list[tuple[Clip, Clip, Question]]:
    """Up to ``count`` clips, each with another clip and a question of that one whose answer is wrong for the first."""
    found: list[tuple[Clip, Clip, Question]] = []
    taken: set[tuple[str, str]] = set()
    for clip in _shuffled(clips, generator) * (1 + count // max(len(clips), 1)):
        if len(found) == count:
            break
        wrong = (
            (clip, donor, question)
            for donor in _shuffled(clips, generator)
            for question in donor.questions
            if (clip.media, donor.media) not in taken
            and answer_of(question, clip.needles) not in (None, question.answer)
        )
        if (choice := next(wrong, None)) is not None:
            taken.add((clip.media, choice[1].media))
            found.append(choice)
    return found


def _shuffled(clips: Sequence[Clip], generator: torch.Generator) -> list[Clip]:
    return [clips[i] for i in torch.randperm(len(clips), generator=generator).tolist()]
