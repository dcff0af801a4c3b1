"""From a folder, videos and questions to a model's inputs: prompts, batches, files of several layouts, refusals."""

import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.hub import tiny_families as tiny
from tests.hub import tiny_processors
from tests.hub.tiny_processors import processing, striped
from tokenizers.processors import TemplateProcessing

import vxl_lightning.hub
from vxl_lightning.errors import UserError
from vxl_lightning.hub import compressing, load_processing

TIMES = torch.tensor([1.0, 1.5, 2.25, 3.0, 61.5])


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_a_prompt_has_the_question_behind_the_video(name):
    made = processing(name)([striped(5, 20, 30)], [TIMES], ["which shape ?"])
    words = tiny_processors.tokenizer(name)
    assert made["input_ids"].shape == made["attention_mask"].shape and bool(made["attention_mask"].all())
    tail = words(" which shape ? .", add_special_tokens=False)["input_ids"]
    if name != "smolvlm":
        assert made["input_ids"][0, -4:].tolist() == tail
    assert ("mm_token_type_ids" in made) == name.startswith("qwen")
    if name.startswith("qwen"):
        assert torch.equal(made["mm_token_type_ids"] == 2, made["input_ids"] == tiny.VIDEO)


@pytest.mark.parametrize(("template", "begins"), [("{v}", [1, 10]), ("<s>{v}", [1, 10])])
def test_a_prompt_begins_once(template, begins):
    made = processing("llava_next_video")
    made.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.preparation.prompt = lambda question: template.format(v=f"{question} <video>")
    ids = made([striped(2, 20, 30)], [TIMES[:2]], ["which ?"])["input_ids"][0]
    assert ids[:2].tolist() == begins


def test_vision_marks_of_qwen3_stand_where_the_processor_of_the_installed_transformers_leaves_them():
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
    from transformers.video_utils import VideoMetadata

    made = processing("qwen3_vl")
    ours = made([striped(4, 20, 30)], [torch.arange(4) / 2], ["which ?"])
    theirs = object.__new__(Qwen3VLProcessor)  # a whole one needs torchvision
    theirs.video_processor = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    theirs.image_token, theirs.video_token = "<|image_pad|>", "<|video_pad|>"
    theirs.vision_start_token, theirs.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    metadata = VideoMetadata(total_num_frames=4, fps=2.0, frames_indices=[0, 1, 2, 3])
    video = theirs.replace_video_token({**ours, "video_metadata": [metadata]}, 0)
    prompt, _ = theirs.get_text_with_replacements([made.preparation.prompt("which ?")], videos_replacements=[video])
    assert made.tokenizer(prompt)["input_ids"] == ours["input_ids"].tolist()
    assert ours["input_ids"][0].tolist().count(80) == 3, "around each of two pairs of frames, and around both"


def test_smolvlm_has_a_template_of_its_own():
    prompt = tiny_processors.preparation("smolvlm").prompt("which ?")
    assert prompt == "<|im_start|>User: <video>which ?<end_of_utterance>\nAssistant:"


def test_times_are_written_as_they_were_and_not_as_single_precision_has_them():
    shown = []

    def note(frames, times):
        shown.append(times)
        raise StopIteration

    made = processing("video_llama_3")
    made.preparation = note
    with pytest.raises(StopIteration):
        made([striped(3, 20, 30)], [torch.tensor([0.15, 0.35, 3600.85])], ["a"])
    assert shown == [[0.15, 0.35, 3600.85]]


@torch.no_grad()
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_a_batch_answers_as_its_rows_do_alone(name):
    made, model = processing(name), tiny.model(name)
    frames = (4, 4) if name.startswith("llava") else (4, 2)
    videos = [striped(n, 20, 30 - 4 * i) for i, n in enumerate(frames)]
    times, asked = [TIMES[:n] for n in frames], ["which shape ? a", "what ?"]
    both = made(videos, times, asked)
    assert not bool(both["attention_mask"][1, 0]), "the shorter prompt is padded on the left"
    with compressing(model, None):
        together = model(**both).logits[:, -1]
        for row in range(2):
            alone = model(**made(videos[row : row + 1], times[row : row + 1], asked[row : row + 1])).logits[0, -1]
            assert torch.allclose(together[row], alone, atol=1e-4)


def test_nothing_here_asks_for_torchvision():
    source = Path(vxl_lightning.hub.__file__).parent
    assert not [
        file for file in source.rglob("*.py") if re.search(r"^\s*(import|from) torchvision", file.read_text(), re.M)
    ]
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    needed = str([project["dependencies"], project["optional-dependencies"]])
    assert "torchvision" not in needed and "num2words" not in needed


def test_folders_of_older_layouts_are_read_the_same(tmp_path):
    name, given = "qwen2_vl", ([striped(5, 20, 30)], [TIMES], ["which shape ?"])
    folder = tiny_processors.folder(name, tmp_path)
    expected = load_processing(folder)(*given)
    (folder / "processor_config.json").unlink()
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    said = {"image_processor_type": "Qwen2VLImageProcessor", "do_convert_rgb": True, "crop_size": None}
    for file in ("video_preprocessor_config.json", "preprocessor_config.json"):
        (folder / file).write_text(json.dumps({**said, **tiny_processors.VIDEO[name]}))
        found = load_processing(folder)(*given)
        assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in found)
        (folder / file).unlink()
    with pytest.raises(UserError, match=r"nothing there tells how videos are prepared"):
        load_processing(folder)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("processor_config.json", "{", r"processor_config\.json is damaged"),
        ("processor_config.json", "[]", r"processor_config\.json is damaged"),
        ("processor_config.json", '{"video_processor": {"video_processor_type": "Other"}}', "allowed: Qwen2VLVideoPro"),
        ("chat_template.json", "{", r"chat_template\.json is damaged"),
        ("tokenizer.json", "{", "tokenizer cannot be read"),
    ],
)
def test_damaged_files_and_other_processors_are_refused(file, content, says, tmp_path):
    folder = tiny_processors.folder("qwen2_vl", tmp_path)
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=rf"model=hf:.*{says}"):
        load_processing(folder)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    folder = tiny_processors.folder("qwen2_vl", tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer there; allowed: tokenizer\.json"):
        load_processing(folder)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", "no chat template there"),
        ("{{ nothing.at.all }}", "chat template cannot be filled in"),
        ("{{ messages[0]['content'][1]['text'] }}", r"writes 0 <video> for one video"),
    ],
)
def test_a_chat_template_has_one_place_for_a_video(template, says, tmp_path):
    folder = tiny_processors.folder("internvl", tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    made = load_processing(folder)
    with pytest.raises(UserError, match=says):
        made([striped(2, 20, 30)], [TIMES[:2]], ["which ?"])


@pytest.mark.parametrize(("name", "mark"), [("qwen3_vl", "<|image_pad|>"), ("internvl", "<IMG_CONTEXT>")])
def test_a_question_may_not_hold_what_stands_for_a_picture(name, mark):
    with pytest.raises(UserError, match="stands for what is shown; leave it out"):
        processing(name)([striped(2, 20, 30)], [TIMES[:2]], [f"which {mark} ?"])
