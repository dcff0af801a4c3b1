"""Duplicates, each of a clean clip of its own, and the questions that clean clips are asked."""

import shutil
from dataclasses import replace

from vxl_lightning.data.synth.corpus.clips import Clip
from vxl_lightning.data.synth.corpus.copies import COPIES, transcode
from vxl_lightning.data.synth.corpus.entries import Truth, entries
from vxl_lightning.data.synth.corpus.state import Corpus

QUESTIONS = 4  # that a clip needs to be copied: two for itself and two for the copy


def duplicate(corpus: Corpus) -> None:
    """Make the copies and their records, then the records of the clean clips."""
    config = corpus.config
    hosts = [corpus.clips[i] for i in corpus.order("hosts", len(corpus.clips))]
    copied = iter([clip for clip in hosts if len(clip.questions) >= QUESTIONS])
    given_away: set[str] = set()
    for number in range(config.exact_videos):
        original = next(copied)
        if number % 2:
            given_away.add(original.media)
        _exact(corpus, original, number)
    for number in range(config.reencoded):  # they lost their end, so that the original is the longest
        _near(corpus, next(copied), "reencoded", number, 0, config.num_frames - config.group_frames)
    half = config.num_frames // config.group_frames // 2 * config.group_frames
    for number in range(config.trimmed):
        first = corpus.chance("trimmed", number).randint(1, config.num_frames - half - 1)
        _near(corpus, next(copied), "trimmed", number, first, first + half)
    for clip in corpus.clips:
        corpus.entries += entries(clip, asked=slice(0, -2) if clip.media in given_away else slice(None))


def _exact(corpus: Corpus, original: Clip, number: int) -> None:
    """The same bytes: with the same first questions, or every second time with the last, which then are its alone."""
    copy = replace(original, media=f"copies/copy-{number:04d}.mp4")
    shutil.copyfile(corpus.path(original.media), corpus.path(copy.media))
    corpus.plant(copy.media, Truth("exact_video", "drop", "exact_video", original.media))
    if number % 2:
        truth = Truth("exact_video_other_qa", "keep", "exact_video", original.media)
        corpus.entries += entries(copy, truth, slice(-2, None), late=True)
        return
    for again, twin in zip(entries(copy, asked=slice(2), late=True), entries(original), strict=False):
        truth = Truth("exact_video_same_qa", "drop", "exact_qa", twin.id)
        corpus.entries.append(replace(again, truth=truth))


def _near(corpus: Corpus, original: Clip, kind: str, number: int, first: int, last: int) -> None:
    """Frames ``first`` to ``last`` (not included), encoded in another way, and what is true of them."""
    encoding = COPIES[number % len(COPIES)]
    copy = corpus.studio.part(original, f"{kind}/{kind}-{number:04d}{encoding.suffix}", first, last)
    transcode(corpus.path(original.media), corpus.path(copy.media), encoding, first, last)
    truth = Truth(kind, "drop", "near_video", original.media)
    corpus.plant(copy.media, truth)
    corpus.entries += entries(copy, truth, slice(2), late=True)
