"""Exclusion lists, and the records that they name: what a benchmark holds, found in the training data."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vxl_lightning.curation.contamination import qa_hash
from vxl_lightning.data.schema import Sample, Turn
from vxl_lightning.data.synth.corpus.clips import Clip
from vxl_lightning.data.synth.corpus.entries import Entry, Truth, entry

_RULE = "contamination"
_ABSENT = "0" * 64  # lists also name what no corpus holds


@dataclass
class Exclusions:
    """What the lists hold."""

    ids: list[str] = field(default_factory=lambda: ["a-benchmark-video", "a-benchmark-question-17"])
    video_hashes: list[str] = field(default_factory=lambda: [_ABSENT])
    qa_hashes: list[str] = field(default_factory=lambda: [_ABSENT])
    benchmark: list[tuple[str, str]] = field(default_factory=list)
    """Questions and answers."""

    def by_path(self, clip: Clip, number: int) -> Truth:
        """All of a clip's records, by its path or, every second one, by its name alone."""
        self.ids.append(clip.name if number % 2 else clip.media)
        return Truth("contaminated_path", "drop", _RULE)

    def by_hash(self, sha256: str) -> None:
        self.video_hashes.append(sha256)

    def by_id(self, chosen: Entry) -> Entry:
        assert chosen.id is not None
        self.ids.append(chosen.id)
        return replace(chosen, truth=Truth("contaminated_id", "drop", _RULE))

    def by_question(self, clip: Clip, number: int, in_benchmark: bool) -> Entry:
        """A question of a benchmark asked about a clip, every second time in other case and spacing."""
        scene = f"{'benchmark' if in_benchmark else 'held-out'} scene {number + 1}"
        asked = clip.questions[0]
        text = f"In {scene}: {asked.text}"
        if in_benchmark:
            self.benchmark.append((text, asked.answer))
        else:
            self.qa_hashes.append(qa_hash(text, asked.answer))
        question = replace(asked, text=_restyled(text) if number % 2 else text)
        kind = "contaminated_benchmark" if in_benchmark else "contaminated_question"
        return entry(
            f"{clip.name}-{kind.removeprefix('contaminated_')}-{number}", clip, question, Truth(kind, "drop", _RULE)
        )

    def write(self, folder: Path) -> None:
        """The lists and the benchmark's annotations, two questions of it a record."""
        folder.mkdir()
        for name in ("ids", "video_hashes", "qa_hashes"):
            (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in getattr(self, name)), encoding="utf-8")
        pairs = self.benchmark or [("What does no corpus ask?", "this")]
        samples = [_conversation(i // 2, pairs[i : i + 2]) for i in range(0, len(pairs), 2)]
        write_list(folder / "benchmark.json", [Entry(s.to_record(), Truth()).text for s in samples])


def write_list(path: Path, records: Sequence[str]) -> None:
    """Records, each as JSON, as one JSON list."""
    path.write_text("[\n" + ",\n".join(records) + "\n]\n", encoding="utf-8")


def _restyled(text: str) -> str:
    return text.upper().replace(" ", "  ")


def _conversation(number: int, pairs: Sequence[tuple[str, str]]) -> Sample:
    turns: list[Turn] = []
    for question, answer in pairs:
        turns += [Turn("human", question if turns else f"<image>\n{question}"), Turn("gpt", answer)]
    return Sample(f"benchmark-{number}", f"benchmark-{number}.mp4", tuple(turns))
