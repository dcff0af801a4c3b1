"""What is written about a record and about a media file: the record, and the truth about it."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vxl_lightning.data.synth.corpus.clips import Clip
from vxl_lightning.data.synth.questions import Question, annotate

Expected = Literal["keep", "drop", "quarantine", "flag", "weigh"]


@dataclass(frozen=True)
class Truth:
    """What was planted, what should become of it, the rule that should find it, and what it duplicates.

    ``flag`` and ``weigh`` are kept: one is odd but usable, the other counts for less or more. A ``rule`` of a record
    that is to be kept is one that looks at it and must let it pass.
    """

    planted: str = "clean"
    expected: Expected = "keep"
    rule: str | None = None
    twin: str | None = None


CLEAN = Truth()
# Whoever answers these needs the order of the frames, or when they are.
_TIMED = {"order": Truth("ordered", "weigh", "ordered"), "when": Truth("timed", "weigh", "ordered")}


@dataclass(frozen=True)
class Entry:
    """One record of a source.

    Attributes:
        record: what is written as JSON; text that is not JSON in ``raw`` instead.
        truth: about it.
        media: the path it should point at, where it names one.
        late: read after the records that it duplicates.
        raw: a line that is no JSON.
    """

    record: Any
    truth: Truth
    media: str | None = None
    late: bool = False
    raw: str | None = None

    @property
    def id(self) -> str | None:
        name = self.record.get("id") if isinstance(self.record, dict) else None
        return name if isinstance(name, str) else None

    @property
    def text(self) -> str:
        return self.raw if self.raw is not None else json.dumps(self.record, ensure_ascii=False)

    def line(self, source: str, number: int) -> dict[str, Any]:
        """Its line of ``truth.jsonl``."""
        where = {"source": source, "record_number": number, "id": self.id, "media": self.media}
        return where | asdict(self.truth)


def entry(identity: str, clip: Clip, question: Question, truth: Truth | None = None, late: bool = False) -> Entry:
    """A question about a clip; without ``truth`` what its task says."""
    sample = annotate(identity, clip.media, clip.needles, [question], footage=clip.source)
    return Entry(sample.to_record(), truth or _TIMED.get(question.task, CLEAN), clip.media, late)


def entries(clip: Clip, truth: Truth | None = None, asked: slice = slice(None), late: bool = False) -> list[Entry]:
    """A record for every question of a clip, or for some."""
    numbered = list(enumerate(clip.questions))[asked]
    return [entry(f"{clip.name}-q{i}", clip, question, truth, late) for i, question in numbered]


def again(original: Entry, suffix: str, truth: Truth, change: Callable[[dict[str, Any]], Any] = dict) -> Entry:
    """A changed copy of a record under another id."""
    record = json.loads(json.dumps(original.record))
    return replace(original, record=change(record | {"id": f"{record['id']}-{suffix}"}), truth=truth)
