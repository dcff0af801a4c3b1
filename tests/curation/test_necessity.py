import json
import math
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests import tiny_lm

from vxl_lightning.curation import ladder as reading
from vxl_lightning.curation import necessity
from vxl_lightning.curation.ladder import MAX_ANSWER, Asked, Reader, asked, reader
from vxl_lightning.curation.necessity import LADDER, STEPS, blind, held, ladder, reordered, weights
from vxl_lightning.curation.recipe import NecessityRules
from vxl_lightning.data.decoding import write_video
from vxl_lightning.encoders.base import EncodedFrames, Encoder
from vxl_lightning.errors import UserError
from vxl_lightning.models.build import AdapterConfig, VideoLMConfig, build_video_lm
from vxl_lightning.models.prefix import PromptConfig
from vxl_lightning.models.pretrained import save_pretrained

ENCODER = {"name": "efficientnet_lite0", "pretrained": False, "image_size": 32, "taps": False}
LEVELS = (20, 60, 100, 140, 180, 220)


def film(path, levels=LEVELS, each=4):
    """Grey levels one after the other, ``each`` frames of every one, four frames a second."""
    frames = torch.tensor(levels, dtype=torch.uint8).repeat_interleave(each)[:, None, None, None]
    write_video(path, frames.expand(-1, 3, 32, 32).contiguous(), 4.0)


def record(*pairs, choices=None, video="a.mp4"):
    turns = [{"from": "human" if i % 2 == 0 else "gpt", "value": text} for i, text in enumerate(sum(pairs, ()))]
    turns[0]["value"] = "<image>\n" + turns[0]["value"]
    given = {} if choices is None else {"choices": choices}
    return json.dumps({"id": "x", "video": video, "conversations": turns, **given})


def table(*rows):
    """Rows (record, media, kind), numbered from 10."""
    names = ("record", "media", "kind")
    return pa.Table.from_pylist(
        [{"row": 10 + i, "sample_id": f"s{i}", **dict(zip(names, row, strict=True))} for i, row in enumerate(rows)]
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A language model's folder and a video language model's."""
    root = tmp_path_factory.mktemp("models")
    language = str(tiny_lm.folder(root / "lm"))
    compressor = {"name": "pool", "retention": 0.25, "frames_per_group": 4}
    config = VideoLMConfig(dim=1280, language_model=language, compressor=compressor, adapter=AdapterConfig(rank=0))
    torch.manual_seed(0)
    save_pretrained(root / "video_lm", build_video_lm(config), config, encoder=ENCODER, fps=4.0)
    return language, str(root / "video_lm")


@pytest.fixture(autouse=True)
def fresh():
    yield
    reading.reader.cache_clear()


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_choices_belong_to_their_questions():
    pairs = ("shape?", "disk"), ("colour?", "red")
    both = asked(record(*pairs, choices=[["disk", "ring"], ["red", "blue"]]))
    assert both == [Asked("shape?", "disk", ("disk", "ring")), Asked("colour?", "red", ("red", "blue"))]
    assert asked(record(pairs[0], choices=["ring", "disk", "disk"])) == [Asked("shape?", "disk", ("ring", "disk"))]
    assert asked(record(*pairs)) == [Asked("shape?", "disk"), Asked("colour?", "red")]


@pytest.mark.parametrize("choices", ["disk", [], [["disk"]], [["ring", "star"]], [None], [[]]])
def test_choices_that_do_not_hold_the_answer_and_another_leave_a_question_open(choices):
    assert asked(record(("shape?", "disk"), choices=choices)) == [Asked("shape?", "disk")]


def test_placeholders_and_empty_answers_are_not_asked():
    assert asked(record(("<video> shape?", "disk"), ("why?", " "))) == [Asked("shape?", "disk")]


# --- losses -----------------------------------------------------------------------------------------------------------


def plainly(model, question, answer):
    """Nats of each token of an answer, read by the language model with nothing packed."""
    chat = model.layout.chat
    before, told = chat.head + chat.question(question), chat.answer(answer)
    ids = torch.tensor([before + told])
    logits = model.language_model(input_ids=ids).logits[0, len(before) - 1 : -1].double().log_softmax(-1)
    return -logits.gather(1, torch.tensor(told)[:, None])[:, 0]


def loaded(settings):
    """The reader that `blind` asks where only a language model is named, and `ladder` where a folder is."""
    return reader(settings.model, settings.language_model, settings.device)


@torch.no_grad()
def test_named_choices_are_asked_about_in_every_order(folders):
    settings = NecessityRules(language_model=folders[0])
    question = Asked("Is it a ring or a disk?", "disk", ("disk", "ring"))
    assert [q.question for q in question.turned()] == ["Is it a ring or a disk?", "Is it a disk or a ring?"]
    assert Asked("Which ring?", "disk", ("disk", "ring")).turned() == [Asked("Which ring?", "disk", ("disk", "ring"))]
    told = Asked("The ring came first. Which came first, the ring or the disk?", "ring", ("disk", "ring"))
    assert told.turned() == [told]
    three = Asked("b, a or c?", "a", ("a", "b", "c"))
    assert [q.question for q in three.turned()] == ["b, a or c?", "a, c or b?", "c, b or a?"]
    rows = [(record((q.question, q.answer), choices=[["disk", "ring"]]), "", "video") for q in question.turned()]
    (mean, other) = blind(table(*rows), settings)["blind"].to_pylist()
    assert mean == pytest.approx(other)  # whichever order it came in
    model = loaded(settings).model
    odds = []
    for q in question.turned():
        disk, ring = (-plainly(model, q.question, word).sum() for word in q.choices)
        odds.append(float(torch.stack([disk, ring]).softmax(0)[0]))
    assert math.exp(-mean) == pytest.approx(sum(odds) / 2, rel=1e-4)


@torch.no_grad()
def test_blind_loss_is_of_answer_tokens_or_among_the_choices(folders):
    settings = NecessityRules(language_model=folders[0], batch_size=2)
    samples = table(
        (record(("What shape?", "disk")), "", "video"),
        (record(("What shape?", "disk"), choices=[["ring", "disk"]]), "", "video"),
        (record(("What shape?", "disk"), ("And the colour?", "dark red")), "", "video"),
        (record(("What shape?", "")), "", "video"),
    )
    found = blind(samples, settings)
    assert found.schema == necessity.BLIND
    assert found["row"].to_pylist() == [10, 11, 12, 13]
    model = loaded(settings).model
    shape, other = plainly(model, "What shape?", "disk"), plainly(model, "What shape?", "ring")
    odds = torch.stack([-other.sum(), -shape.sum()]).log_softmax(0)
    colour = plainly(model, "And the colour?", "dark red")
    wanted = [float(shape.mean()), -float(odds[1]), (float(shape.mean()) + float(colour.mean())) / 2]
    assert found["blind"].to_pylist()[:3] == pytest.approx(wanted, rel=1e-4)
    assert found["blind"][3].as_py() is None


@torch.no_grad()
def test_long_answers_are_judged_by_their_beginning(folders):
    settings = NecessityRules(language_model=folders[0])
    long = "abcdefgh" * 20
    (loss,) = blind(table((record(("Tell?", long)), "", "video")), settings)["blind"].to_pylist()
    nats = plainly(loaded(settings).model, "Tell?", long)
    assert loss == pytest.approx(float(nats[:MAX_ANSWER].mean()), rel=1e-4)
    assert loss != pytest.approx(float(nats.mean()), rel=1e-4)


def test_a_question_beyond_the_context_has_no_loss_and_spoils_no_other(folders, tmp_path):
    settings = NecessityRules(model=folders[1], language_model="")
    film(tmp_path / "a.mp4")
    samples = table(
        (record(("x" * 3000, "disk")), "a.mp4", "video"), (record(("What shape?", "disk")), "a.mp4", "video")
    )
    first, second = blind(samples, settings)["blind"].to_pylist()
    assert first is None and second > 0
    shown = ladder(samples, settings, tmp_path, 0).to_pylist()
    assert shown[0]["problem"] == "too_long" and shown[0]["full"] is None and "2,048" in shown[0]["detail"]
    assert shown[1]["problem"] is None and shown[1]["full"] > 0


# --- the ladder -------------------------------------------------------------------------------------------------------


class Greys(Encoder):
    """One cell a frame: its grey level."""

    dim, grid, frame_size = 1, (1, 1), (32, 32)

    def encode(self, frames):
        return EncodedFrames(frames.float().mean((1, 2, 3))[:, None, None, None])


class Attentive(Reader):
    """Reads grey levels, and is as surprised as it has seen too little: what each step shows decides its loss."""

    def prefixes(self, grid, questions):
        seen = grid.features[0, :, 0, 0, 0]
        return [(torch.tensor([min(LEVELS, key=lambda v: abs(v - x)) for x in seen.tolist()]), list(questions))]

    def length(self, prefix, question):
        return len(prefix)

    def losses(self, trees, batch_size):
        return [[self.surprise(seen.tolist(), q.question) for q in questions] for seen, questions in trees]

    @staticmethod
    def surprise(seen, question):
        missed = len(set(LEVELS) - set(seen))
        later = sum(b < a for i, a in enumerate(seen) for b in seen[i:])
        return {
            "which levels?": missed,
            "do they rise?": (later + missed) / 10,
            "is the middle there?": 140 not in seen,
        }[question]


@pytest.fixture
def attentive(monkeypatch):
    compressor = SimpleNamespace(min_frames=1, frames_per_group=4)
    model = SimpleNamespace(
        device=torch.device("cpu"),
        compressor=compressor,
        plain=SimpleNamespace(config=None),
        nothing=lambda: torch.zeros(0, 1),
    )
    made = Attentive(model, Greys(Greys.Config()), 4.0)
    monkeypatch.setattr(necessity, "reader", lambda *_: made)
    return NecessityRules(model="attentive", frames=3)


def test_the_steps_show_what_they_say(attentive, tmp_path):
    film(tmp_path / "a.mp4")
    questions = ["which levels?", "do they rise?", "is the middle there?"]
    samples = table(*((record((q, "yes")), "a.mp4", "video") for q in questions))
    found = ladder(samples, attentive, tmp_path, 0)
    assert found.schema == LADDER
    levels, rising, middle = found.to_pylist()
    assert [levels[s] for s in STEPS] == [5, 3, 0, 0]  # one level of six, three of six, all in another order, all
    assert rising["full"] == 0 < rising["few"] < rising["one"] < rising["shuffled"]
    assert [middle[s] for s in STEPS] == [0, 0, 0, 0]
    columns = {s: found[s].to_numpy() for s in STEPS}
    gain, weight, one_frame, ordered = weights(np.array([6.0, 2.0, 1.0]), **columns, settings=attentive)
    assert gain.tolist() == [6, 2, 1]
    assert one_frame.tolist() == [False, False, True] and ordered.tolist() == [False, True, False]
    assert weight.tolist() == [1, attentive.ordered, attentive.one_frame]


def test_rows_do_not_depend_on_those_around_them(attentive, tmp_path):
    film(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4", LEVELS[::-1])
    rows = [(record(("do they rise?", "yes")), name, "video") for name in ("a.mp4", "b.mp4")]
    both, turned = (ladder(table(*r), attentive, tmp_path, 0).select(STEPS).to_pylist() for r in (rows, rows[::-1]))
    assert both == turned[::-1] and both[0] != both[1]


def test_a_real_model_reads_every_step_and_batching_changes_nothing(folders, tmp_path):
    film(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4", LEVELS[::-1], each=3)
    open_, closed = ("What shape?", "disk"), ("What colour?", "red")
    both = record(open_, closed, choices=[[], tiny_lm.COLOURS])
    rows = [(both, "a.mp4", "video"), (record(open_), "a.mp4", "video"), (both, "b.mp4", "video")]
    found = [ladder(table(*rows), NecessityRules(model=folders[1], batch_size=n), tmp_path, 0) for n in (1, 8)]
    for step in STEPS:
        one, many = (t[step].to_numpy() for t in found)
        np.testing.assert_allclose(one, many, rtol=1e-4)
        assert np.isfinite(one).all() and (one > 0).all()
    # A video of one grey looks the same in every step, because all show it as many frames at the same times.
    film(tmp_path / "flat.mp4", (128,), each=24)
    (flat,) = ladder(table((both, "flat.mp4", "video")), NecessityRules(model=folders[1]), tmp_path, 0).to_pylist()
    assert [flat[s] for s in STEPS] == pytest.approx([flat["full"]] * 4, rel=1e-3)


def test_a_selector_reads_each_question(folders, tmp_path):
    film(tmp_path / "a.mp4")
    root = tmp_path / "selecting"
    config = VideoLMConfig(
        dim=1280, language_model=folders[0], compressor={"name": "pool", "retention": 0.25, "frames_per_group": 4},
        selector={"name": "similarity"}, adapter=AdapterConfig(rank=0),
        prompt=PromptConfig(select=2),
    )  # fmt: skip
    save_pretrained(root, build_video_lm(config), config, encoder=ENCODER, fps=4.0)
    samples = table((record(("What shape?", "disk"), ("What colour?", "red")), "a.mp4", "video"))
    (row,) = ladder(samples, NecessityRules(model=str(root)), tmp_path, 0).to_pylist()
    assert all(row[s] > 0 for s in STEPS)


def test_images_have_nothing_to_leave_out(folders, tmp_path):
    from PIL import Image

    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "a.png")
    samples = table((record(("What shape?", "disk"), video="a.png"), "a.png", "image"))
    (row,) = ladder(samples, NecessityRules(model=folders[1]), tmp_path, 0).to_pylist()
    assert row["full"] > 0 and row["problem"] is None
    assert row["one"] is row["few"] is row["shuffled"] is None


def test_media_that_cannot_be_read_are_rows_with_a_problem(folders, tmp_path):
    film(tmp_path / "a.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    names = ["bad.mp4", "a.mp4", "missing.mp4", "a.mp4"]
    samples = table(*((record(("What shape?", "disk")), name, "video") for name in names))
    found = ladder(samples, NecessityRules(model=folders[1]), tmp_path, 0).to_pylist()
    assert [r["row"] for r in found] == [10, 11, 12, 13]
    assert [r["problem"] for r in found] == ["undecodable", None, "undecodable", None]
    assert "bad.mp4" in found[0]["detail"] and found[0]["full"] is None and found[1]["full"] == found[3]["full"]


def test_without_samples_there_are_no_rows(folders, tmp_path):
    empty = table((record(("q", "a")), "a.mp4", "video")).slice(0, 0)
    assert blind(empty, NecessityRules(language_model=folders[0])).num_rows == 0
    assert ladder(empty, NecessityRules(model=folders[1]), tmp_path, 0).num_rows == 0


def test_what_settings_must_name(folders, tmp_path):
    samples = table((record(("q", "a")), "a.mp4", "video"))
    with pytest.raises(UserError, match=r"necessity\.model is empty"):
        ladder(samples, NecessityRules(language_model=folders[0]), tmp_path, 0)
    config = VideoLMConfig(dim=8, language_model=folders[0], adapter=AdapterConfig(rank=0))
    save_pretrained(tmp_path / "blind", build_video_lm(config), config)
    with pytest.raises(UserError, match="does not record its encoder"):
        ladder(samples, NecessityRules(model=str(tmp_path / "blind")), tmp_path, 0)


def test_a_model_is_loaded_once(folders):
    settings = NecessityRules(language_model=folders[0])
    assert loaded(settings) is loaded(NecessityRules(language_model=folders[0], margin=0.1))


# --- weights and orders -----------------------------------------------------------------------------------------------


def test_weights():
    nan = math.nan
    rows = {  # blind, one, few, shuffled, full -> necessity, weight, one frame, ordered
        "needs all": ([2, 2, 2, 0.1, 0.1], [1.9, 1, False, False]),
        "one frame does": ([2, 0.2, 0.1, 0.1, 0.1], [1.9, 0.5, True, False]),
        "order matters": ([2, 2, 2, 1.5, 0.1], [1.9, 2, False, True]),
        "nothing helps": ([2, 2, 2, 2, 2], [0, 1, False, False]),
        "worse with the video": ([1, 3, 3, 4, 3], [-2, 1, False, False]),
        "blind alone": ([0.1, nan, nan, nan, nan], [nan, 1, False, False]),
        "an image": ([2, nan, nan, nan, 0.5], [1.5, 1, False, False]),
        "no blind loss": ([nan, 0.1, 0.1, 2, 0.1], [nan, 1, False, False]),
    }
    columns = np.array([given for given, _ in rows.values()], dtype=float).T
    found = np.array(weights(*columns, settings=NecessityRules()), dtype=float).T
    np.testing.assert_allclose(found, np.array([wanted for _, wanted in rows.values()], dtype=float))


def test_held_frames_are_the_middles_of_even_stretches():
    assert held(9, 1).tolist() == [4] * 9
    assert held(8, 2).tolist() == [2] * 4 + [6] * 4
    assert held(5, 5).tolist() == held(5, 9).tolist() == list(range(5))
    assert held(1, 4).tolist() == [0]
    for frames in range(6, 40):
        for shown in range(1, 6):
            index = held(frames, shown)
            assert (index.diff() >= 0).all() and len(index.unique()) == shown


@pytest.mark.parametrize("frames", [2, 3, 5, 8, 11, 32, 33])
@pytest.mark.parametrize("parts", [1, 2, 4, 7])
def test_reordered_frames_are_all_there_in_another_order(frames, parts):
    for seed in range(20):
        index = reordered(frames, parts, 4, torch.Generator().manual_seed(seed))
        assert sorted(index.tolist()) == list(range(frames))
        assert index.tolist() != list(range(frames))
        if frames >= 8:  # groups of four stay together, what is left of the last stays where it is
            whole = frames - frames % 4
            groups = index[:whole].view(-1, 4)
            assert (groups % 4 == torch.arange(4)).all()
            assert index[whole:].tolist() == list(range(whole, frames))


def test_stretches_come_last_to_first_and_chance_moves_the_middle_one():
    def orders(parts):
        draws = [reordered(parts, parts, 1, necessity._generator(0, f"{i}.mp4")).tolist() for i in range(20)]
        assert draws == [reordered(parts, parts, 1, necessity._generator(0, f"{i}.mp4")).tolist() for i in range(20)]
        return sorted(set(map(tuple, draws)))

    assert orders(4) == [(3, 2, 1, 0)]
    assert orders(5) == [(4, 2, 3, 1, 0), (4, 3, 1, 2, 0)]
    assert all(place != i for parts in range(2, 10) for order in orders(parts) for i, place in enumerate(order))


def test_one_frame_has_no_other_order():
    assert reordered(1, 4, 4, torch.Generator()).tolist() == [0]
