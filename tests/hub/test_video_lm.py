"""Questions asked of a wrapped model: counted, scored and timed; from a folder, or refused in one line."""

import json

import pytest
import torch
from tests.hub import tiny_families as tiny
from tests.hub import tiny_processors
from tests.hub.test_boundary import build

from vxl_lightning.cli.main import main
from vxl_lightning.data.decoding import write_video
from vxl_lightning.errors import UserError
from vxl_lightning.hub import HubVideoLM, load_hub

FRAMES = torch.randint(0, 256, (6, 3, 16, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
TIMES = torch.arange(6) * 0.5 + 1.0
CHOICES = ["red", "red disk", "blue"]


def wrapped(spec=None, **more):
    return HubVideoLM(
        tiny.model("llava_next_video"), tiny_processors.processing("llava_next_video"), compressor=build(spec), **more
    )


def test_an_answer_counts_what_reached_the_language_model():
    model = wrapped({"name": "uniform", "retention": 0.5})
    answer = model.answer(FRAMES, TIMES, "which shape ?", max_new_tokens=3)
    assert answer.counts["grid_tokens"] == 24 and answer.counts["visual_tokens"] == 12
    assert answer.counts["kv_length"] == 12 + 4  # which shape ? .
    assert answer.counts["kv_bytes"] == 2 * 16 * 2 * 2 * 8 * 4  # keys and values, layers, heads, channels, bytes
    assert answer.tokens.span[[0, -1], 0].tolist() == [1.5, 3.5], "in the seconds of the frames"
    assert answer.scores is None and set(answer.milliseconds) == {"prepare", "encode", "answer"}
    assert answer.text == model.answer(FRAMES, TIMES, "which shape ?", max_new_tokens=3).text


def test_a_choice_is_as_likely_as_the_whole_sequence_with_it_says():
    model = wrapped({"name": "uniform", "retention": 0.5})
    scores = model.answer(FRAMES, TIMES, "what colour ?", CHOICES).scores
    words = model.processing.tokenizer
    for choice in CHOICES:
        given = model.inputs(FRAMES, TIMES, "what colour ?")
        ids = torch.tensor(
            [[*words.encode(choice, add_special_tokens=False), words.eos_token_id]]
        )  # one begins another
        given["input_ids"] = torch.cat([given["input_ids"], ids], 1)
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        with torch.no_grad(), model.compressing():
            likely = model.model(**given).logits[0, -ids.shape[1] - 1 : -1].log_softmax(-1)
        assert scores[choice] == pytest.approx(float(likely.gather(1, ids[0, :, None]).sum()), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": FRAMES.float()}, "must be uint8 RGB"),
        ({"times": TIMES[:3]}, "times must be"),
        ({"choices": ["a", "a"]}, "different answers"),
        ({"choices": ["a", ""]}, "at least one token"),
    ],
)
def test_what_cannot_be_asked_is_refused(change, says):
    with pytest.raises(UserError, match=says):
        wrapped().answer(**{"frames": FRAMES, "times": TIMES, "question": "which ?", **change})


def test_a_budget_that_cannot_be_kept_names_the_method_and_the_video():
    with pytest.raises(UserError, match=r"compressor=Pool on a video of 6 frames of 2 x 2 cells: retention=0\.9"):
        wrapped({"name": "pool", "retention": 0.9}).answer(FRAMES, TIMES, "which shape ?")


def test_a_folder_that_holds_no_video_model_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load_hub(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match=r"model_type='llama' cannot be wrapped; allowed: internvl, "):
        load_hub(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        load_hub(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    with pytest.raises(UserError, match="model=hf:"):
        load_hub(tmp_path)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_a_folder_of_every_family_answers(name, tmp_path):
    model = load_hub(f"hf:{tiny_processors.folder(name, tmp_path)}", compressor={"name": "uniform", "retention": 0.5})
    answer = model.answer(FRAMES, TIMES, "which shape ?", max_new_tokens=3)
    assert 0 < answer.counts["visual_tokens"] < answer.counts["grid_tokens"]
    first, last = answer.tokens.span[[0, -1], 0].tolist()
    assert TIMES[0] <= first < last <= TIMES[-1]
    assert set(model.answer(FRAMES, TIMES, "which shape ?", CHOICES).scores) == set(CHOICES)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("ask") / "video.mp4"
    write_video(path, FRAMES.repeat_interleave(2, 2).repeat_interleave(2, 3), 2.0)
    return str(path)


def test_the_command_asks_a_wrapped_model(video, monkeypatch, capsys):
    asked = []

    def load(path, compressor):
        asked.append((path, compressor))
        return wrapped(compressor)

    monkeypatch.setattr("vxl_lightning.hub.load.load_hub", load)
    command = ["ask", "hf:somewhere", video, "which shape ?", "--choices", "disk,ring"]
    assert main([*command, "--compressor", "uniform", "--retention", "0.5"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] in ("disk", "ring") and "24 grid tokens, 12 into the language model" in said
    assert asked == [("hf:somewhere", {"name": "uniform", "retention": 0.5})]


def test_the_command_asks_a_folder_from_beginning_to_end(video, tmp_path, capsys):
    folder = tiny_processors.folder("smolvlm", tmp_path)
    command = ["ask", f"hf:{folder}", video, "which shape ?", "--choices", "disk,ring"]
    assert main([*command, "--compressor", "uniform", "--retention", "0.5"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] in ("disk", "ring") and "grid tokens, " in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["hf:nowhere"], "no config.json"),
        (["hf:nowhere", "--retention", "0.5"], "--retention=0.5 without a compressor"),
        (["hf:nowhere", "--show", "kept.png"], "leave it out"),
        (["tuned", "--compressor", "dtd"], "are for hf:FOLDER"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(arguments, says, video, capsys):
    model, *more = arguments
    assert main(["ask", model, video, "which ?", *more]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
