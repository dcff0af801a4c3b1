"""How likely given answers are after a video: all questions of a batch in one pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vxl_lightning.caches.base import Memory
from vxl_lightning.errors import UserError
from vxl_lightning.models.packing import Segment, pack, trie
from vxl_lightning.models.remembering import Row

if TYPE_CHECKING:
    from vxl_lightning.models.video_lm import VideoLM


def choice_scores(
    model: "VideoLM",
    rows: Sequence[Row],
    questions: Sequence[Sequence[str]],
    choices: Sequence[Sequence[Sequence[str]]],
) -> list[list[Tensor]]:
    """What `VideoLM.choice_scores` gives, for questions laid out in rows."""
    found = judged_choices(model, rows, questions, choices)
    return [[torch.stack([c.log_likelihood.sum() for c in of]) for of in asked] for asked in found]


@dataclass(frozen=True, eq=False)
class JudgedChoice:
    """A choice, token by token; where one choice is the beginning of another, their ends are judged too.

    Attributes:
        log_likelihood: ``[n]`` float32 of each token after those before it.
        likeliest: ``[n]`` bool, whether no other token is likelier there.
    """

    log_likelihood: Tensor
    likeliest: Tensor


def judged_choices(
    model: "VideoLM",
    rows: Sequence[Row],
    questions: Sequence[Sequence[str]],
    choices: Sequence[Sequence[Sequence[str]]],
) -> list[list[list[JudgedChoice]]]:
    """Every choice of every question of every video, all in one pass."""
    trees, wanted = [], []
    for row in rows:
        tree, paths = [row.root], []
        for i in row.questions:
            root = len(tree)
            tree.append(Segment(model.ids(model.layout.chat.question(questions[row.video][i])), 0))
            answers = trie(_choice_ids(model, choices[row.video][i]))
            for token, parent in answers.nodes:
                tree.append(Segment(model.ids([token]), root if parent < 0 else root + 1 + parent))
            followed = [[(root if n < 0 else root + 1 + n, t) for n, t in path] for path in answers.paths]
            paths.append((row.video, i, followed))
        trees.append(tree)
        wanted.append(paths)
    found: list[list[list[JudgedChoice]]] = [[[] for _ in asked] for asked in questions]
    if not any(wanted):
        return found
    packed = pack(trees, model.embedding)
    ends = [  # every place whose next token matters, once
        (b, packed.last[b][s]) for b, tree in enumerate(trees) for s in range(1, len(tree))
    ]
    place = {key: i for i, key in enumerate(ends)}
    where = model.ids([b for b, _ in ends]), model.ids([p for _, p in ends])
    table = model.logits(model.hidden(packed, memories(rows))[where]).float().log_softmax(-1)
    best = table.argmax(-1)
    for b, of_tree in enumerate(wanted):
        for video, i, followed in of_tree:
            for path in followed:
                at, said = model.ids([place[b, packed.last[b][s]] for s, _ in path]), model.ids([t for _, t in path])
                found[video][i].append(JudgedChoice(table[at, said], best[at] == said))
    return found


def scored(model: "VideoLM", memory: Memory, question: str, choices: Sequence[str]) -> dict[str, float]:
    """Log-likelihood of every choice of one question after what is remembered."""
    root = Segment(model.embedding(model.ids([])), -1)
    found = choice_scores(model, [Row(0, [0], root, memory)], [[question]], [[choices]])[0][0]
    return dict(zip(choices, found.tolist(), strict=True))


def answer_losses(
    model: "VideoLM", rows: Sequence[Row], questions: Sequence[Sequence[tuple[str, str]]], max_tokens: int
) -> list[list[float]]:
    """What `VideoLM.answer_losses` gives, for questions laid out in rows."""
    chat, trees, order = model.layout.chat, [], []
    for row in rows:
        tree = [row.root]
        for i in row.questions:
            question, answer = questions[row.video][i]
            tree.append(Segment(model.ids(chat.question(question)), 0))
            tree.append(Segment(model.ids(chat.answer(answer)[:max_tokens]), len(tree) - 1, supervised=True))
            order.append((row.video, i))
        trees.append(tree)
    found = [[math.nan] * len(pairs) for pairs in questions]
    if not order:
        return found
    packed = pack(trees, model.embedding)
    nats = -model.log_likelihood(packed, memories(rows))
    which = packed.predict[:, 0] * max(map(len, trees)) + packed.segment
    # An answer's tokens are neighbours, in the order of trees and questions.
    counts = torch.unique_consecutive(which, return_counts=True)[1].tolist()
    for (video, i), part in zip(order, nats.split(counts), strict=True):
        found[video][i] = float(part.mean())
    return found


def memories(rows: Sequence[Row]) -> list[Memory]:
    """What the rows follow; nothing where their prefixes are read with them."""
    return [row.memory for row in rows if row.memory is not None]


def _choice_ids(model: "VideoLM", options: Sequence[str]) -> list[list[int]]:
    if not options or len(set(options)) != len(options):
        raise UserError(f"choices={list(options)!r} must be different answers, at least one")
    chat = model.layout.chat
    encoded = [chat.answer(option) for option in options]
    nested = any(a != b and b[: len(a)] == a for a in encoded for b in encoded)
    return [ids + chat.end() for ids in encoded] if nested else encoded
