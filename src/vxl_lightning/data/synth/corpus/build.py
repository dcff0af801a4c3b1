"""Put a corpus together: media first, then the records about them, the lists that exclude some, and the truth.

The corpus appears complete or not at all.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from vxl_lightning.data.files import sha256_of
from vxl_lightning.data.synth import build as synth
from vxl_lightning.data.synth.corpus.config import CorpusConfig
from vxl_lightning.data.synth.corpus.copies import ORIGINAL, encode, pictures
from vxl_lightning.data.synth.corpus.damage import DAMAGES
from vxl_lightning.data.synth.corpus.entries import Truth, entries
from vxl_lightning.data.synth.corpus.exclude import write_list
from vxl_lightning.data.synth.corpus.film import film
from vxl_lightning.data.synth.corpus.malformed import LINK, SECRET
from vxl_lightning.data.synth.corpus.questions import ask
from vxl_lightning.data.synth.corpus.state import Corpus
from vxl_lightning.data.synth.corpus.twins import duplicate
from vxl_lightning.data.synth.footage import Footage
from vxl_lightning.data.synth.writing import Progress
from vxl_lightning.errors import UserError

SOURCES = ("instruct.json", "crawl.jsonl", "reuploads.json")
"""Annotation files, in the order of the mixture; the last holds what duplicates records of the others."""


def plan_corpus(config: CorpusConfig, out: str | Path) -> dict[Path, str]:
    """What would be made where, everything checked that can be before any work.

    Raises:
        UserError: footage is missing, or ``out`` is not empty.
    """
    path = Path(out)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: is not empty; name another folder or remove it first")
    synth.check_footage()
    return {
        path / "media": f"{_files(config)} files, most of them clips of {config.num_frames} frames, {config.size} px",
        path / "annotations": f"records about them in {', '.join(SOURCES)}",
        path / "exclude": "what benchmarks hold",
        path: "mixture.yaml, and the truth: truth.jsonl, media_truth.jsonl",
    }


def make_corpus(config: CorpusConfig, out: str | Path, progress: Progress | None = None) -> dict[str, int]:
    """Make a corpus with planted faults.

    Args:
        config: what to plant.
        out: folder; must be empty or not exist.
        progress: told (media files done, in all).

    Returns:
        For every kind that was planted its number of records.

    Raises:
        UserError: footage is missing or gives too few clips, or ``out`` is not empty.
    """
    out = Path(out)
    plan_corpus(config, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        done = itertools.count(1)

        def tick() -> None:
            if progress is not None:
                progress(next(done), _files(config))

        corpus = Corpus(config, Footage.load("train"), Path(folder) / "corpus", tick)
        film(corpus)
        duplicate(corpus)
        _damage(corpus)
        ask(corpus)
        _write(corpus)
        corpus.root.rename(out)
    return dict(Counter(e.truth.planted for e in corpus.entries))


def _damage(corpus: Corpus) -> None:
    """Files that cannot be used, each with a record, and the healthy video that no path may reach."""
    secret, config = corpus.root / SECRET, corpus.config
    for number in range(max(config.damaged, 1)):
        clip, frames = corpus.studio.clip("spare", number)
        rate = Fraction(config.fps).limit_denominator(1001)
        encode(secret, pictures(frames), ORIGINAL, rate, [i / rate for i in range(len(frames))])
        video = secret.read_bytes()
        for kind, make in DAMAGES.items() if config.damaged else ():
            broken = replace(clip, media=f"damaged/{kind.replace('_', '-')}-{number:04d}.mp4")
            make(corpus.path(broken.media), video, corpus.chance(kind, number))
            truth = Truth(kind, "quarantine", "damaged")
            corpus.plant(broken.media, truth)
            corpus.entries += entries(broken, truth, slice(1))
    corpus.path(LINK).symlink_to(f"../../{SECRET}")
    corpus.plant(LINK, Truth("path_through_link", "quarantine", "malformed"))


def _files(config: CorpusConfig) -> int:
    """Media files of a corpus."""
    clips = config.clips + config.ordered + config.one_frame + config.static + 2 * config.contaminated
    copies = config.exact_videos + config.reencoded + config.trimmed
    return clips + copies + (2 + len(DAMAGES)) * config.damaged + 1  # and the link out of the folder


def _write(corpus: Corpus) -> None:
    """Annotations, mixture, lists and truth."""
    for media, truth in corpus.media.items():
        if truth.planted == "contaminated_video":
            corpus.exclusions.video_hashes.append(sha256_of(corpus.path(media)))
    corpus.exclusions.write(corpus.root / "exclude")
    folder = corpus.root / "annotations"
    folder.mkdir()
    early = [e for e in corpus.entries if not e.late]
    parts = (  # kinds that come in pairs are in both; text that is not JSON only where records are lines
        [e for i, e in enumerate(early) if i % 2 == 0 and e.raw is None],
        [e for i, e in enumerate(early) if i % 2 == 1 or e.raw is not None],
        [e for e in corpus.entries if e.late],
    )
    lines: list[dict[str, object]] = []
    for name, part in zip(SOURCES, parts, strict=True):
        shuffled = [part[i] for i in corpus.order(name, len(part))]
        if name.endswith(".json"):
            write_list(folder / name, [e.text for e in shuffled])
        else:
            (folder / name).write_text("".join(f"{e.text}\n" for e in shuffled), encoding="utf-8")
        lines += [e.line(f"annotations/{name}", number) for number, e in enumerate(shuffled, 1)]
    mixture = "".join(f"  - {{json_path: annotations/{name}, sampling_strategy: all}}\n" for name in SOURCES)
    (corpus.root / "mixture.yaml").write_text(f"datasets:\n{mixture}", encoding="utf-8")
    _write_lines(corpus.root / "truth.jsonl", lines)
    files = ({"media": media} | asdict(truth) for media, truth in sorted(corpus.media.items()))
    _write_lines(corpus.root / "media_truth.jsonl", files)


def _write_lines(path: Path, lines: Iterable[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
