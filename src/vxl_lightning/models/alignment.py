"""Alignment: projected tokens are made to point at the embeddings of the words that describe them.

The cheap first stage of tuning, with no language model in the loop. It is supervised: it needs words with times,
which the synthetic needles have and which captions with times would give. Where the questions ask for
the same words, as the needle task does, a model aligned this way has been shown the vocabulary of the
answers (never the questions); every variant of an ablation is shown the same.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.data.schema import Sample
from vxl_lightning.errors import UserError
from vxl_lightning.models.prefix import Projected, stretches
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.tokens import VideoTokens

SCALE = 5.0
"""Logits of the words of a group are its best token's reach along each, times this."""
NAMING_WEIGHT = 0.5
"""Weight of telling words apart, beside being what says them."""
SILENCE_WEIGHT = 0.2
"""Weight of the squared length of tokens that have nothing to say, in lengths of a word."""
NOISE = 0.3
"""Length of the noise in a token that is told in words, in lengths of a word."""


@dataclass(frozen=True)
class Event:
    """Words that describe what is seen at a time."""

    seconds: float
    words: tuple[str, ...]


def events(sample: Sample) -> list[Event]:
    """What is seen when, from a sample's ``needles``.

    Raises:
        UserError: the sample has no needles.
    """
    needles = sample.meta.get("needles")
    if not isinstance(needles, list):
        raise UserError(
            f"sample {sample.id!r} has no list 'needles': alignment needs words with times; "
            "train with objective=answer, align_weight=0 and from_words=0 (in an ablation: align.batch_size=0)"
        )
    return [Event(float(n["time"]), (str(n["colour"]), str(n["shape"]))) for n in needles]


def alignment_loss(
    model: VideoLM, projected: Projected, seen: Sequence[Sequence[Event]], words: Sequence[str]
) -> Tensor:
    """One token of each group becomes what says the group's words, the sum of their embeddings; the others fall silent.

    That token is the one that reaches furthest along these words. Its squared distance to the sum, in lengths of a
    word, is what the language model must not stumble over: it has read such sums (`spoken`) and nothing else there. A
    cross-entropy beside it tells each word from those that are not there, which is what is learnt fast.

    Args:
        projected: a batch of videos.
        seen: the events of every video.
        words: the vocabulary; words of events that are not in it are left out.
    """
    features = projected.features.float()
    group, per_video = _groups(model, projected)
    target = features.new_zeros(len(seen) * per_video, len(words))
    index = {word: i for i, word in enumerate(words)}
    starts = projected.times[:, :: model.prompt.frames_per_time].contiguous()
    for b, clip in enumerate(seen):
        for event in clip:
            at = group_at(starts[b], event.seconds)
            for word in event.words:
                if word in index:
                    target[b * per_video + at, index[word]] = 1.0
    if not words:
        return features.square().sum() * 0.0  # a batch that shows nothing has no words to measure lengths in
    table, length = word_embeddings(model, words), table_length(model, words)
    reach = word_reach(model, features, words)
    asked = (reach * target[group]).sum(1).detach()
    furthest = asked.new_full((len(target),), float("-inf")).scatter_reduce(0, group, asked, "amax")
    says = (asked == furthest[group]) & target.any(1)[group]
    silence = (features.square().sum(1) * ~says).sum() / (~says).sum().clamp(min=1) / length**2
    if not says.any():
        return SILENCE_WEIGHT * silence
    away = (features - (target @ table)[group])[says].square().sum(1).mean() / length**2
    # Every word there is against those that are not: the others that are there are left out.
    best = group_reach(model, projected, words)
    there = target > 0
    where, named = (there & best[:, :1].isfinite()).nonzero(as_tuple=True)
    others = there[where] & ~F.one_hot(named, len(words)).bool()
    naming = F.cross_entropy(SCALE * best[where].masked_fill(others, float("-inf")), named)
    return away + SILENCE_WEIGHT * silence + NAMING_WEIGHT * naming


def _groups(model: VideoLM, projected: Projected) -> tuple[Tensor, int]:
    """``[N]`` the group of each token, counted over the batch, and the groups of a video."""
    tokens, frames = projected.tokens, model.prompt.frames_per_time
    per_video = -(-tokens.source.shape[1] // frames)
    return tokens.video * per_video + stretches(tokens.position, frames), per_video


def group_reach(model: VideoLM, projected: Projected, words: Sequence[str]) -> Tensor:
    """``[B * groups, V]`` float32, how far each group's best token reaches along each word; -inf without tokens."""
    reach = word_reach(model, projected.features, words)
    group, per_video = _groups(model, projected)
    best = reach.new_full((len(projected.tokens.lengths) * per_video, len(words)), float("-inf"))
    return best.scatter_reduce(0, group[:, None].expand_as(reach), reach, "amax")


def word_reach(model: VideoLM, features: Tensor, words: Sequence[str]) -> Tensor:
    """``[N, V]`` float32, how far each token reaches along each word's embedding: 1 at the word itself."""
    table = word_embeddings(model, words)
    return features.float() @ (table / table.square().sum(1, keepdim=True)).T


def word_embeddings(model: VideoLM, words: Sequence[str]) -> Tensor:
    """``[V, hidden]`` the language model's own embeddings of words inside a sentence, averaged over a word's tokens."""
    with torch.no_grad():
        rows = [model.embedding(model.ids(model.layout.chat.word(word))).float().mean(0) for word in words]
    return torch.stack(rows)


def table_length(model: VideoLM, words: Sequence[str]) -> Tensor:
    """Mean length of the words' embeddings."""
    mean: Tensor = word_embeddings(model, words).norm(dim=1).mean()
    return mean


def vocabulary(samples: Sequence[Sample]) -> list[str]:
    """Words that alignment tells apart: those that describe the samples, and the choices they were among."""
    words = {word for sample in samples for event in events(sample) for word in event.words}
    for sample in samples:
        for options in sample.meta.get("choices", []):
            if words.intersection(options or []):
                words.update(str(option) for option in options)
    return sorted(words)


def spoken(model: VideoLM, samples: Sequence[Sample], times: Tensor, count: int) -> Projected:
    """Videos told in words: what perfectly aligned tokens would be, with no compressor involved.

    Every group gets ``count`` tokens of a little noise; each event adds its words' embeddings to one of its
    group's tokens, now more, now less, and half of the time more faintly to a second, as a shape that lies across
    several cells does. A language model that is warmed up on these learns to look things up before any
    compressor is chosen, at the same cost for all of them. The noise follows from the samples' ids alone.

    Args:
        times: ``[B, T]`` seconds of the frames.
        count: tokens a group.
    """
    frames = times.shape[1]
    groups = -(-frames // model.prompt.frames_per_time)
    words = vocabulary(samples)
    table = dict(zip(words, word_embeddings(model, words), strict=True)) if words else {}
    length = NOISE * table_length(model, words) if words else torch.zeros((), device=times.device)
    hidden = int(model.language_model.config.hidden_size)
    starts = times[:, :: model.prompt.frames_per_time].contiguous()
    clips = []
    for b, sample in enumerate(samples):
        generator = torch.Generator().manual_seed(zlib.crc32(sample.id.encode()))
        noise = torch.randn(groups, count, hidden, generator=generator)
        clip = noise.to(length.device) * length / hidden**0.5
        for event in events(sample):
            said = torch.stack([table[w] for w in event.words]).sum(0)
            slot, other = torch.randint(count, (2,), generator=generator).tolist()
            loud, echo, whether = torch.rand(3, generator=generator).tolist()
            here = clip[group_at(starts[b], event.seconds)]
            here[slot] += (0.8 + 0.4 * loud) * said
            if other != slot and whether < 0.5:
                here[other] += (0.2 + 0.6 * echo) * said
        clips.append(clip.flatten(0, 1))
    device, size = times.device, groups * count
    group = torch.arange(groups, device=device).repeat_interleave(count).repeat(len(samples))
    position = torch.zeros(len(group), 3, device=device)
    position[:, 0] = group * model.prompt.frames_per_time
    first = starts.repeat_interleave(count, 1).flatten()
    source = (torch.arange(frames, device=device) // model.prompt.frames_per_time * count).expand(len(samples), frames)
    tokens = VideoTokens(
        torch.cat(clips), torch.full((len(samples),), size, device=device), position,
        torch.stack([first, first], 1).float(), source[:, :, None, None],
    )  # fmt: skip
    return Projected(tokens, tokens.features, times)


def group_at(starts: Tensor, seconds: float) -> int:
    """The group of a time: the last whose first frame is not after it, with a little slack for rounded times.

    Args:
        starts: ``[G]`` seconds of the groups' first frames; what no longer rises is padding.
        seconds: the time.
    """
    there = torch.cat([starts.new_ones(1, dtype=torch.bool), starts.diff() > 0]).cumprod(0).bool()
    return int((there & (starts <= seconds + 1e-3)).sum().clamp(1)) - 1
