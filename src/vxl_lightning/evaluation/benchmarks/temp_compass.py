"""TempCompass: the same temporal facts asked in four formats, over videos that differ in time alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from vxl_lightning.evaluation.averages import macro, micro
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged, Judgement, Listing, Problem, Question
from vxl_lightning.evaluation.benchmarks.temp_compass_text import (
    captions,
    choices,
    information,
    judge_choice,
    judge_matching,
    repeated,
    right_information,
)
from vxl_lightning.evaluation.places import below, first_there
from vxl_lightning.evaluation.rows import Row, RowError, as_json, choose_layout, listing, read_files

__all__ = ["TempCompass"]

CHOICE, YES_NO, MATCHING, CAPTIONING = "multi-choice", "yes_no", "caption_matching", "captioning"
NAMES = {
    CHOICE: "Multi-Choice QA",
    YES_NO: "Yes/No QA",
    MATCHING: "Caption Matching",
    CAPTIONING: "Caption Generation (our words, not their judge)",
}
INSTRUCTIONS = {
    CHOICE: "\nPlease directly give the best option:",
    YES_NO: "\nPlease answer yes or no:",
    MATCHING: "\nPlease directly give the best option:",
    CAPTIONING: "",  # the question ends in "Generated Caption:"
}
DIMENSIONS = ("action", "direction", "speed", "order", "attribute_change")
META = "meta_info.json"


class TempCompass(Benchmark):
    """TempCompass (ACL 2024 Findings): 7,540 questions of 410 videos in five temporal dimensions and four formats.

    Multi-choice, yes/no and caption matching follow the rules of ``eval_*.py --disable_llm``: ``</s>`` is taken out and
    the reply stripped, then

    - multi-choice: the whole option, a letter, or a beginning such as ``A.`` or ``A)``;
    - yes/no: a reply that begins with "yes" or "no" in any case, so "not sure" is no;
    - caption matching: an option whole, its sentence alone (or after ``) ``), its name ("Sentence A") or that without
      its word ("A"), full stops aside.

    What these do not match is unparsed and wrong, and its rate is a figure of its own; without ``--disable_llm`` the
    authors ask GPT-3.5. Caption generation has no rule of the authors, who ask GPT-3.5 always. Ours reads a caption as
    the one piece of information of which it has the very words. Of the captions that the authors released of three
    models it reads 23 %, and 93 % of these as their judge did; that figure is comparable between runs of ours alone.
    ``submission`` holds the files of the authors' ``predictions/``, for their scripts with a judge.

    lmms-eval strips nothing from replies, and its accuracies of dimensions are, by the authors' README, not right.
    """

    title: ClassVar[str] = "TempCompass"
    origin: ClassVar[str] = (
        "arXiv 2403.00476; github.com/llyx97/TempCompass (CC BY-NC 4.0). Rules of eval_multi-choice.py, eval_yes_no.py "
        "and eval_caption_matching.py with --disable_llm; caption generation by a rule of our own, never by GPT-3.5."
    )
    layout: ClassVar[str] = (
        "questions/multi-choice.json, yes_no.json, caption_matching.json, captioning.json (of the repository)\n"
        "  or multi-choice/test-00000-of-00001.parquet, and so on (huggingface.co/datasets/lmms-lab/TempCompass)\n"
        "meta_info.json (of the repository; if it is there, results are also given by fine-grained aspect)\n"
        "videos/*.mp4 (unpacked tempcompass_videos.zip)"
    )
    folder_name: ClassVar[str] = "TempCompass"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        captioning: bool = True
        """Also ask for captions, which offline rules can read only where they repeat the given words."""

    def read(self) -> Listing:
        formats = [f for f in NAMES if f != CAPTIONING or self.config.captioning]
        json_files = [f"questions/{f}.json" for f in formats]
        files = choose_layout(self.folder, json_files, [f"{f}/test-00000-of-00001.parquet" for f in formats])
        aspects = self._aspects()
        questions: list[Question] = []
        problems: list[Problem] = []
        for format_, rows in zip(formats, read_files(*files), strict=True):
            numbered = nested(rows) if files[0].suffix == ".json" else flat(rows)
            made = listing(numbered, partial(self._question, format_=format_, aspects=aspects))
            questions += made.questions
            problems += made.problems
        return Listing(questions, problems)

    def _aspects(self) -> dict[str, Row] | None:
        if not (self.folder / META).exists():
            return None
        (rows,) = read_files(self.folder / META)
        return {row.key: row for row in rows}

    def _question(self, row: Row, format_: str, aspects: Mapping[str, Row] | None) -> Question:
        video, dimension = row.word("video_id"), row.one_of("dim", DIMENSIONS)
        asked, answer = row.text("question"), row.text("answer")
        groups = {"format": format_, "dimension": dimension}
        if aspects is not None:
            groups["aspect"] = aspect(aspects, video, dimension)
        if format_ == YES_NO:
            answer = row.one_of("answer", ("yes", "no"))
            options: tuple[str, ...] = ("yes", "no")
        elif format_ == CAPTIONING:
            options = ()
            answer = information(asked)[right_information(asked, answer)]
        else:
            named = choices(asked) if format_ == CHOICE else captions(asked)
            options = tuple(named.values())
            if not (answer[0] in named if format_ == CHOICE else answer in asked.split("\n")[1:]):
                raise RowError(f"answer: must be one of the options of the question, not {answer!r}")
        return Question(
            id=f"{format_}/{video}/{dimension}/{row.key}",
            video=first_there(self.folder, *below(("videos", "tempcompass_videos", ""), f"{video}.mp4")),
            text=asked.split("\n")[0] if format_ in (CHOICE, MATCHING) else asked,
            options=options,
            answer=answer,
            categories=groups,
            meta={"video_id": video, "question": asked, "answer": row.text("answer")},
        )

    def prompt(self, question: Question, times: Sequence[float]) -> str:
        return f"{question.meta['question']}{INSTRUCTIONS[question.categories['format']]}"

    def chosen(self, question: Question, option: int) -> str:
        asked = question.meta["question"]
        if question.categories["format"] == CHOICE:
            return list(choices(asked))[option]
        return question.options[option] if question.categories["format"] == YES_NO else list(captions(asked))[option]

    def judge(self, question: Question, reply: str) -> Judgement:
        said = reply.replace("</s>", "").strip()
        format_ = question.categories["format"]
        if format_ == CHOICE:
            return judge_choice(question, said)
        if format_ == MATCHING:
            return judge_matching(question, said)
        if format_ == YES_NO:
            found = next((word for word in ("yes", "no") if said.lower().startswith(word)), None)
        else:
            found = repeated(said, list(information(question.meta["question"]).values()))
        return Judgement(float(found == question.answer), found)

    def figures(self, judged: Sequence[Judged]) -> list[Figure]:
        made: list[Figure] = []
        ruled = [j for j in judged if j.question.categories["format"] != CAPTIONING]
        for format_, name in NAMES.items():
            of_format = [j for j in judged if j.question.categories["format"] == format_]
            if not of_format:
                continue
            made.append(micro(name, of_format, headline=format_ != CAPTIONING))
            for dimension in DIMENSIONS:
                group = [j for j in of_format if j.question.categories["dimension"] == dimension]
                if group:
                    made.append(micro(f"{name}: {dimension}", group))
            made.append(micro(f"{name}: unmatched", of_format, value=unmatched, unit="rate"))
        if ruled:
            made.append(macro("mean of the three formats with rules (macro)", ruled, "format"))
        return made

    def submission(self, judged: Sequence[Judged]) -> dict[str, bytes]:
        """A file a format as in the authors' ``predictions/<model>/``, which ``eval_<format>.py`` reads."""
        files: dict[str, dict[str, dict[str, list[dict[str, str]]]]] = {}
        for j in judged:
            published, groups = j.question.meta, j.question.categories
            videos = files.setdefault(f"{groups['format']}.json", {})
            rows = videos.setdefault(published["video_id"], {}).setdefault(groups["dimension"], [])
            rows.append({"question": published["question"], "answer": published["answer"], "prediction": j.reply})
        return {name: as_json(videos) for name, videos in files.items()}

    @classmethod
    def miniature(cls, folder: Path) -> None:
        told = [{"subject": "kite", "direction": d} for d in ("rising", "falling", "falling sideways")]
        pieces = "\n".join(f"Information {letter}: {piece}" for letter, piece in zip("ABC", told, strict=True))
        choice = "Where does the kite go?\nA. rising\nB. falling\nC. staying"
        match = "Which caption matches the video better?\nCaption A: A kite rises.\nCaption B: A kite falls."
        caption = f"Please caption the video by the information.\n{pieces}\nGenerated Caption:"
        for format_, question, answers in (
            (CHOICE, choice, ("A. rising", "B. falling")),
            (YES_NO, "Is the kite rising?", ("yes", "no")),
            (MATCHING, match, ("Caption A: A kite rises.", "Caption B: A kite falls.")),
            (CAPTIONING, caption, ("A. rising", "B. falling")),
        ):
            rows = {v: {"direction": [{"question": question, "answer": a}]} for v, a in zip("12", answers, strict=True)}
            path = folder / "questions" / f"{format_}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(rows), encoding="utf-8")
        of = {"eval_dim": {"direction": {"subject": "kite", "direction": "rising", "type": "object motion"}}}
        (folder / META).write_text(json.dumps({"1": of, "2": of}), encoding="utf-8")

    def truth(self, question: Question) -> str:
        return f"It is {question.answer}." if question.categories["format"] == CAPTIONING else question.answer

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"captioning": False}]


def nested(rows: Sequence[Row]) -> Iterator[Row]:
    """The questions of ``{video: {dimension: [question, ...]}}``, each with its video, dimension and number."""
    for row in rows:
        if not isinstance(row.value, Mapping):
            yield row
            continue
        for dimension, items in row.value.items():
            if not isinstance(items, list):
                yield Row(f"{row.where}.{dimension}", items)
                continue
            for i, item in enumerate(items):
                known = {"video_id": row.key, "dim": dimension}
                value = {**item, **known} if isinstance(item, Mapping) else item
                yield Row(f"{row.where}.{dimension}[{i}]", value, str(i))


def flat(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows that name their video and dimension, numbered within these."""
    seen: dict[tuple[Any, Any], int] = {}
    for row in rows:
        place = (str(row.value.get("video_id")), str(row.value.get("dim")))
        seen[place] = seen.get(place, -1) + 1
        yield replace(row, key=str(seen[place]))


def aspect(aspects: Mapping[str, Row], video: str, dimension: str) -> str:
    """The fine-grained aspect of a dimension of a video; order has none."""
    if dimension == "order":
        return dimension
    try:
        return str(aspects[video].field("eval_dim")[dimension]["type"])
    except (KeyError, TypeError, RowError):
        raise RowError(f"{META} has no type of eval_dim.{dimension} for the video {video!r}") from None


def unmatched(judged: Judged) -> float:
    return float(judged.judgement.parsed is None)
