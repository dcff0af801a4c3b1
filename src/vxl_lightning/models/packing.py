"""Several continuations of one beginning in a single sequence: a tree of token segments under a block mask.

A clip's prefix is shared by all its questions, a question by all its answer choices. Laid out one
after another, with a mask that lets a token see its ancestors alone and positions that count along its own
branch, every branch reads exactly what it would read in a sequence of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """A run of tokens that follows the end of another run.

    Attributes:
        content: ``[n]`` int64 token ids, or ``[n, D]`` embeddings; n at least 1, but for a root whose tokens were read
            already.
        parent: index of the segment it follows, always an earlier one, or -1 at a root.
        supervised: the language model is to predict these tokens. Ids only.
    """

    content: Tensor
    parent: int
    supervised: bool = False


@dataclass(frozen=True)
class Packed:
    """A batch of trees, padded on the right.

    Attributes:
        embeds: ``[B, L, D]``.
        mask: ``[B, 1, L, L]`` bool, True where the row's token sees the column's.
        position: ``[B, L]`` int64, counted along each branch.
        predict: ``[P, 3]`` int64: (tree, place, token id) for every supervised token: what the hidden
            state at that place has to predict.
        segment: ``[P]`` int64, the segment of its tree each supervised token belongs to.
        last: for every tree, the place of each segment's last token.
    """

    embeds: Tensor
    mask: Tensor
    position: Tensor
    predict: Tensor
    segment: Tensor
    last: list[list[int]]


def pack(trees: Sequence[Sequence[Segment]], embedding: torch.nn.Module) -> Packed:
    """Lay out trees of segments, each tree one row.

    Args:
        trees: segments in an order where parents come before their children.
        embedding: token ids to ``[..., D]``, the language model's own table.
    """
    rows, owners, positions, lasts = [], [], [], []
    predict: list[tuple[int, int, int]] = []
    segments: list[int] = []
    for b, tree in enumerate(trees):
        last: list[int] = []
        end: list[int] = []  # position after each segment's last token
        place = 0
        pieces: list[Tensor] = []
        position: list[int] = []
        for s, segment in enumerate(tree):
            n = len(segment.content)
            assert (n > 0 or segment.parent < 0) and segment.parent < s, "segments follow an earlier one, not empty"
            begin = end[segment.parent] if segment.parent >= 0 else 0
            if segment.supervised:
                before = last[segment.parent]
                for i, token in enumerate(segment.content.tolist()):
                    predict.append((b, before if i == 0 else place + i - 1, token))
                    segments.append(s)
            ids = not segment.content.is_floating_point()
            pieces.append(embedding(segment.content) if ids else segment.content)
            position.extend(range(begin, begin + n))
            end.append(begin + n)
            place += n
            last.append(place - 1)
        rows.append(torch.cat(pieces))
        positions.append(torch.tensor(position))
        lasts.append(last)
        owners.append(_ancestry(tree))
    embeds = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    batch, length = embeds.shape[:2]
    device = embeds.device
    # A padding token sees itself alone: a row without any True would be NaN in the softmax.
    mask = torch.eye(length, dtype=torch.bool).repeat(batch, 1, 1)
    for b, (owner, sees) in enumerate(owners):
        n = len(owner)
        mask[b, :n, :n] = sees[owner][:, owner] & torch.ones(n, n, dtype=torch.bool).tril()
    return Packed(
        embeds=embeds,
        mask=mask[:, None].to(device),
        position=torch.nn.utils.rnn.pad_sequence(positions, batch_first=True).to(device),
        predict=torch.tensor(predict, dtype=torch.long, device=device).reshape(-1, 3),
        segment=torch.tensor(segments, dtype=torch.long, device=device),
        last=lasts,
    )


def side_by_side(trees: Sequence[Sequence[Segment]], length: int) -> list[list[Segment]]:
    """The same trees in fewer rows, so that less of a batch is padding: a row takes several, each with its own root.

    First fit, the longest first. Every token sees what it saw before, at the same positions.

    Args:
        trees: as `pack` takes them.
        length: tokens that a row may have; the longest tree may have more, and so may a row then.
    """
    sizes = [sum(len(segment.content) for segment in tree) for tree in trees]
    rows: list[list[Segment]] = []
    filled: list[int] = []
    most = max([length, *sizes])
    for i in sorted(range(len(trees)), key=lambda i: -sizes[i]):
        row = next((r for r, used in enumerate(filled) if used + sizes[i] <= most), len(rows))
        if row == len(rows):
            rows.append([])
            filled.append(0)
        before = len(rows[row])
        moved = [replace(s, parent=s.parent + before if s.parent >= 0 else -1) for s in trees[i]]
        rows[row] += moved
        filled[row] += sizes[i]
    return rows


def _ancestry(tree: Sequence[Segment]) -> tuple[Tensor, Tensor]:
    """The segment of each token ``[n]``, and which segments each segment sees ``[S, S]``, itself included."""
    count = len(tree)
    sees = torch.eye(count, dtype=torch.bool)
    for s, segment in enumerate(tree):
        if segment.parent >= 0:
            sees[s] |= sees[segment.parent]
    sizes = torch.tensor([len(segment.content) for segment in tree])
    return torch.arange(count).repeat_interleave(sizes), sees


@dataclass(frozen=True)
class Trie:
    """Answer choices as a tree of tokens, shared beginnings once.

    Attributes:
        nodes: (token id, parent node or -1) of every token that has to be read, parents first.
        paths: for every choice its tokens, each as (node before it or -1, token id).
    """

    nodes: list[tuple[int, int]]
    paths: list[list[tuple[int, int]]]


def trie(choices: Sequence[Sequence[int]]) -> Trie:
    """The smallest set of tokens to feed so that every token of every choice is predicted somewhere.

    The last token of a choice need not be fed unless another choice goes on from it: single-token
    choices cost nothing.
    """
    nodes: list[tuple[int, int]] = []
    index: dict[tuple[int, ...], int] = {}
    paths: list[list[tuple[int, int]]] = []
    for choice in choices:
        before, path = -1, []
        for i, token in enumerate(choice):
            path.append((before, token))
            if i == len(choice) - 1:
                break
            key = tuple(choice[: i + 1])
            if key not in index:
                index[key] = len(nodes)
                nodes.append((token, before))
            before = index[key]
        paths.append(path)
    return Trie(nodes, paths)
