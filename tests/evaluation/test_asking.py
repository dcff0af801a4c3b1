import json
from dataclasses import replace

import pytest
import torch
from tests.evaluation.toy import Sayer, Toy

from vxl_lightning.data.decoding import write_video
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.answerer import Reply
from vxl_lightning.evaluation.asking import Ledger, ask, reply_text
from vxl_lightning.evaluation.base import Judgement, Problem
from vxl_lightning.evaluation.config import EvaluationConfig
from vxl_lightning.evaluation.replies import Replies, fingerprint
from vxl_lightning.evaluation.runner import Chosen, run

TABLES = ("results.parquet", "groups.parquet", "questions.parquet", "table.md")


@pytest.fixture
def toy(tmp_path):
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    Toy.miniature(folder)
    for name in ("0.mp4", "1.mp4"):
        frames = torch.randint(0, 256, (8, 3, 64, 64), generator=torch.Generator().manual_seed(int(name[0])))
        write_video(folder / name, frames.to(torch.uint8), 4.0)
    return Toy(Toy.Config(), folder)


def config(tmp_path, **settings):
    given = {"model": "m", "out": str(tmp_path / "out"), "fps": 2.0, "max_frames": 3} | settings
    return EvaluationConfig(**given)


def asked(toy, tmp_path, rows, **settings):
    ledger = Ledger()
    return ask(toy, toy.read().questions, rows, config(tmp_path, **settings), ledger), ledger


def evaluate(toy, tmp_path, rows, out):
    return run(config(tmp_path, out=str(tmp_path / out)), [Chosen("toy", toy, list(toy.read().questions), [])], rows)


def test_every_row_answers_every_question_in_order(toy, tmp_path):
    found, ledger = asked(toy, tmp_path, {"reference": Sayer("yes"), "other": Sayer("no")})
    assert {name: [a.reply.text for a in row] for name, row in found.items()} == {
        "reference": ["yes"] * 6, "other": ["no"] * 6,
    }  # fmt: skip
    assert [a.question.id for a in found["other"]] == list("012345")
    assert found["other"][0].reply.counts == {"visual_tokens": 3}
    assert (ledger.asked, ledger.known) == (12, 0) and 0 < ledger.model <= ledger.asking


def test_a_known_reply_is_not_asked_for_again(toy, tmp_path):
    asked(toy, tmp_path, {"reference": Sayer("yes")})
    again = Sayer("yes")
    _, ledger = asked(toy, tmp_path, {"reference": again})
    assert again.asked == [] and ledger.known == 6


@pytest.mark.parametrize("changed", [{"fps": 1.0}, {"max_frames": 2}])
def test_other_frames_are_asked_about_anew(toy, tmp_path, changed):
    asked(toy, tmp_path, {"reference": Sayer("yes")})
    again = Sayer("yes")
    asked(toy, tmp_path, {"reference": again}, **changed)
    assert len(again.asked) == 6


def test_replies_depend_on_the_frames_that_are_shown_however_they_were_chosen(toy, tmp_path):
    """More frames are allowed, and the video has no more."""
    asked(toy, tmp_path, {"reference": Sayer("yes")}, max_frames=4)
    again = Sayer("yes")
    asked(toy, tmp_path, {"reference": again}, max_frames=64)
    assert again.asked == []


def test_a_changed_video_is_asked_about_anew(toy, tmp_path):
    asked(toy, tmp_path, {"reference": Sayer("yes")})
    write_video(toy.folder / "1.mp4", torch.zeros(8, 3, 64, 64, dtype=torch.uint8), 4.0)
    again = Sayer("yes")
    asked(toy, tmp_path, {"reference": again})
    assert len(again.asked) == 3


@pytest.mark.parametrize("after", range(7))
def test_killed_and_resumed_gives_the_tables_of_an_uninterrupted_run(toy, tmp_path, after):
    evaluate(toy, tmp_path, {"reference": Sayer("yes"), "other": Sayer("no")}, "whole")
    try:
        evaluate(toy, tmp_path, {"reference": Sayer("yes", after), "other": Sayer("no", after)}, "killed")
    except KeyboardInterrupt:
        store = next((tmp_path / "killed" / "cache" / "replies").glob("*.jsonl"), None)
        if store is not None:  # killed while it wrote the last line
            store.write_text(store.read_text()[:-3])
    evaluate(toy, tmp_path, {"reference": Sayer("yes"), "other": Sayer("no")}, "killed")
    for name in TABLES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


def test_a_damaged_video_costs_its_questions_with_the_reason_and_is_tried_again(toy, tmp_path):
    healthy = (toy.folder / "1.mp4").read_bytes()
    (toy.folder / "1.mp4").write_bytes(b"no video")
    found, ledger = asked(toy, tmp_path, {"reference": Sayer("yes")})
    assert [bool(a.failed) for a in found["reference"]] == [False, True] * 3
    assert list(ledger.failed) == ["1.mp4"] and "cannot be decoded" in ledger.failed["1.mp4"]
    (toy.folder / "1.mp4").write_bytes(healthy)
    found, ledger = asked(toy, tmp_path, {"reference": Sayer("yes")})
    assert not any(a.failed for a in found["reference"]) and ledger.known == 3


class Picky(Sayer):
    """Cannot be asked one question of every video, or any."""

    def __init__(self, refuses):
        super().__init__("yes")
        self.refuses = refuses

    def replies(self, shown, asked):
        for one in asked:
            if self.refuses in one.prompt:
                raise UserError(f"{one.prompt} is too long")
            yield from super().replies(shown, [one])


def numbered(toy, count=6):
    some = toy.read().questions
    return [replace(some[i % 6], id=f"{i}", text=f"Is it {i}!") for i in range(count)]


def test_a_question_that_does_not_fit_costs_itself_alone(toy, tmp_path):
    """Such as one prompt, with its subtitles, beyond the context of the language model."""
    told = []
    rows = {"reference": Picky("2!"), "other": Sayer("no")}
    for known in (0, 11):
        ledger = Ledger()
        found = ask(toy, numbered(toy), rows, config(tmp_path), ledger, told.append)
        assert [bool(a.failed) for a in found["reference"]] == [False, False, True, False, False, False]
        assert not any(a.failed for a in found["other"]) and ledger.known == known
        assert list(ledger.refused) == ["reference"] and list(ledger.refused["reference"].values()) == [1]
    assert sum(told) == 24


def test_a_row_that_can_be_asked_nothing_ends_the_run_soon(toy, tmp_path):
    with pytest.raises(UserError, match="row reference cannot be asked any of its first 8 questions: Is it 14!"):
        ask(toy, numbered(toy, 30), {"reference": Picky("Is")}, config(tmp_path), Ledger())


def test_failed_questions_count_as_wrong_and_unparsed(toy, tmp_path):
    import pyarrow.parquet as pq

    (toy.folder / "1.mp4").write_bytes(b"no video")
    out, _ = evaluate(toy, tmp_path, {"reference": Sayer("yes")}, "out")
    (whole,) = [g for g in pq.read_table(out / "groups.parquet").to_pylist() if g["grouping"] == "all"]
    assert (whole["n"], whole["mean"], whole["unparsed"], whole["failed"]) == (6, 0.5, 0.5, 3)
    assert json.loads((out / "manifest.json").read_text())["failed_videos"].keys() == {"1.mp4"}


def test_only_the_window_of_a_question_is_shown(toy, tmp_path):
    class Watcher(Sayer):
        def replies(self, shown, asked):
            self.seen = shown.times
            return super().replies(shown, asked)

    watcher = Watcher("yes")
    (one, *_) = toy.read().questions
    ask(toy, [replace(one, window=(0.5, 1.5))], {"reference": watcher}, config(tmp_path, max_frames=9), Ledger())
    assert watcher.seen == [0.5, 1.0]


def test_likelihood_asks_the_question_alone_with_its_options(toy, tmp_path):
    watcher = Sayer("no")
    found, _ = asked(toy, tmp_path, {"reference": watcher}, answering="likelihood")
    assert set(watcher.asked) == {"Is it?"}


def test_options_of_one_text_are_scored_once_and_are_one_answer(toy, tmp_path):
    """As MLVU and MVBench have them, whose right one of two is the last."""

    class Strict(Sayer):
        def replies(self, shown, asked):
            for one in asked:
                assert one.choices == ("no", "yes")
                yield Reply("yes", scores={"no": -2.0, "yes": -1.0})

    class Last(Toy):
        def chosen(self, question, option):
            return "ABC"[option]

        def judge(self, question, reply):
            return Judgement(float(reply == question.answer), reply)

    benchmark = Last(toy.config, toy.folder)
    some = zip(toy.read().questions, "BC", strict=False)
    doubled = [replace(q, options=("no", "yes", "yes"), answer=a) for q, a in some]
    settings = config(tmp_path, answering="likelihood")
    found = ask(benchmark, doubled, {"reference": Strict("")}, settings, Ledger())["reference"]
    assert [reply_text(benchmark, a) for a in found] == ["B", "C"]


def test_a_line_that_was_cut_short_does_not_count_and_the_next_is_whole(tmp_path):
    store = Replies(tmp_path, "a")
    store.add("1", Reply("one"))
    store.add("2", Reply("zwei ü"))
    store.path.write_bytes(store.path.read_bytes()[:-5])
    store = Replies(tmp_path, "a")
    assert "1" in store and "2" not in store
    store.add("3", Reply("three"))
    store = Replies(tmp_path, "a")
    assert store["3"].text == "three" and "2" not in store


def test_a_line_that_was_cut_within_a_character_does_not_count_either(tmp_path):
    store = Replies(tmp_path, "a")
    store.add("1", Reply("one"))
    store.add("2", Reply("zwei 颗"))
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[: whole.index("颗".encode()) + 1])
    store = Replies(tmp_path, "a")
    assert "1" in store and "2" not in store and len(store) == 1
    store.add("2", Reply("zwei 颗"))
    assert Replies(tmp_path, "a")["2"].text == "zwei 颗"


def test_fingerprints_see_the_end_of_a_file(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(bytes(5_000_000))
    b.write_bytes(bytes(4_999_999) + b"x")
    assert fingerprint(a) != fingerprint(b)
    b.write_bytes(a.read_bytes())
    assert fingerprint(a) == fingerprint(b)


def test_what_is_missing_is_recorded(toy, tmp_path):
    problems = [Problem("toy.json[7]", "answer 'C' is none of its options")]
    chosen = [Chosen("toy", toy, list(toy.read().questions), problems)]
    out, _ = run(config(tmp_path), chosen, {"reference": Sayer("yes")})
    (told,) = json.loads((out / "manifest.json").read_text())["problems"]["toy"]
    assert told == "toy.json[7]: answer 'C' is none of its options (1 questions)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": ""}, "model is empty"),
        ({"answering": "guess"}, "not one of generate, likelihood"),
        ({"fps": 0}, "fps=0 must be above 0"),
        ({"variants": {"a": {"compresor": "dtd"}}}, "unknown key 'compresor'"),
        ({"variants": {"a": {"selector": "uniform"}}}, "give both"),
        ({"variants": {"a": 3}}, "variants.a=3 must be a compressor's name, or a mapping of compressor, selector"),
        ({"variants": {"a": {"compressor": 3}}}, "compressor=3 must be a plugin's name"),
        ({"variants": {"a": {"selector": {"budget": 3}}}}, "must be a plugin's name, or {name: "),
        ({"variants": {"reference": "dtd"}}, "variants.reference: this row is the model as it is"),
        ({"kind": "needels"}, "kind='needels' in the file is neither"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        config(tmp_path, **settings).rows  # noqa: B018


@pytest.mark.parametrize(("longest", "given"), [(0, 0), (100, 100), (8, 32)])
def test_a_benchmark_of_long_replies_is_given_room_for_them(toy, tmp_path, longest, given):
    class Noting(Sayer):
        def replies(self, shown, asked):
            assert {one.max_new_tokens for one in asked} == {given}
            return super().replies(shown, asked)

    toy.longest_reply = longest
    asked(toy, tmp_path, {"reference": Noting("yes")}, max_new_tokens=32)
