"""Draw and encode every clip that is not made from another."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import Tensor

from vxl_lightning.data.synth.corpus.clips import Clip, Drawn
from vxl_lightning.data.synth.corpus.copies import ODD_PIXELS, ORIGINAL, Encoding, encode, pictures
from vxl_lightning.data.synth.corpus.entries import CLEAN, Truth, entries
from vxl_lightning.data.synth.corpus.state import Corpus
from vxl_lightning.data.synth.writing import ahead

_ONE_FRAME = Truth("one_frame", "weigh", "one_frame")
_STATIC = Truth("static", "drop", "static")
_CONTAMINATED = Truth("contaminated_video", "drop", "contamination")
_ODD_PIXELS = Truth("odd_pixels", "flag", "odd_pixels")
_VARIABLE_RATE = Truth("variable_rate", "flag", "variable_rate")


@dataclass(frozen=True, eq=False)
class _Shot:
    """A clip to encode; ``stamps`` are when uneven frames begin (s)."""

    clip: Clip
    frames: Tensor
    truth: Truth
    encoding: Encoding = ORIGINAL
    stamps: tuple[Fraction, ...] | None = None


def film(corpus: Corpus) -> None:
    """Make every clip and, but for the clean ones, its records."""

    def write(shot: _Shot) -> _Shot:
        _encode(corpus, shot)
        return replace(shot, frames=shot.frames[:0])

    for kind in ("clip", "ordered", "one-frame", "static", "held-path", "held-video", "odd-pixels", "variable-rate"):
        corpus.path(f"{kind}/x")
    with ThreadPoolExecutor(corpus.config.workers) as pool:
        for shot in ahead(pool, write, _shots(corpus), 2 * corpus.config.workers):
            corpus.plant(shot.clip.media, shot.truth)


def _shots(corpus: Corpus) -> Iterator[_Shot]:
    """In an order that decides what is drawn, because every clip is unlike those before it."""
    config, studio = corpus.config, corpus.studio
    for i in range(config.clips):
        clip, frames = studio.clip("clip", i)
        corpus.clips.append(clip)
        yield _Shot(clip, frames, CLEAN)
    for i in range(config.ordered):
        yield _asked(corpus, studio.ordered(i), None)
    for i in range(config.one_frame):
        yield _asked(corpus, studio.one_frame(i), _ONE_FRAME)
    for i in range(config.static):
        yield _asked(corpus, studio.static(i), _STATIC)
    for i in range(config.contaminated):
        drawn = studio.clip("held-path", i)
        yield _asked(corpus, drawn, corpus.exclusions.by_path(drawn[0], i))
        yield _asked(corpus, studio.clip("held-video", i), _CONTAMINATED)
    for i in range(config.damaged):
        shot = _asked(corpus, studio.clip("odd-pixels", i), _ODD_PIXELS)
        yield replace(shot, encoding=ODD_PIXELS[i % len(ODD_PIXELS)])
        yield _variable_rate(corpus, i)


def _asked(corpus: Corpus, drawn: Drawn, truth: Truth | None) -> _Shot:
    """A clip whose records are all its questions, each with the truth given, else what their tasks say."""
    clip, frames = drawn
    corpus.entries += entries(clip, truth)
    return _Shot(clip, frames, truth or CLEAN)


def _variable_rate(corpus: Corpus, number: int) -> _Shot:
    """Frames half a frame's, one frame's or three frames' time apart; needles and questions know."""
    config, chance = corpus.config, corpus.chance("uneven", number)
    beat, stamps = 1 / Fraction(config.fps), [Fraction(0)]
    while len(stamps) < config.num_frames:
        step = beat * chance.choice((Fraction(1, 2), Fraction(1), Fraction(3)))
        stamps.append(stamps[-1] + Fraction(round(step * 1000), 1000))
    clip, frames = corpus.studio.clip("variable-rate", number)
    needles = tuple(replace(n, time=float(stamps[n.frame])) for n in clip.needles)
    questions = tuple(replace(q, span=None) for q in clip.questions if q.task != "when")
    shot = _asked(corpus, (replace(clip, needles=needles, questions=questions), frames), _VARIABLE_RATE)
    return replace(shot, stamps=tuple(stamps))


def _encode(corpus: Corpus, shot: _Shot) -> None:
    rate = Fraction(corpus.config.fps).limit_denominator(1001)
    even = tuple(i / rate for i in range(len(shot.frames)))
    base = None if shot.stamps is None else Fraction(1, 1000)
    encode(corpus.path(shot.clip.media), pictures(shot.frames), shot.encoding, rate, shot.stamps or even, base)
