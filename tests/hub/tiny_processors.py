"""What a folder of every family says about videos, around a tokenizer of a few words; and such folders whole."""

import json
from pathlib import Path

import torch
from tests.hub import tiny_families as tiny

from vxl_lightning.hub.family import family_of_kind
from vxl_lightning.hub.processing import Processing
from vxl_lightning.hub.settings import ALWAYS, Settings

WORDS = "which shape what colour red blue disk ring star a ? . A B C D"
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'video' %}MARK{% else %} {{ c['text'] }}{% endif %}{% endfor %}{% endfor %} ."
)
CLIP = {"height": 16, "width": 16}
QWEN = {"patch_size": 4, "merge_size": 2, "size": {"shortest_edge": 16, "longest_edge": 4096}}
VIDEO = {
    "qwen2_vl": {**QWEN, "temporal_patch_size": 2},
    "qwen2_5_vl": {**QWEN, "temporal_patch_size": 2},
    "qwen3_vl": {**QWEN, "temporal_patch_size": 2},
    "qwen3_vl_moe": {**QWEN, "temporal_patch_size": 2},
    "llava_onevision": {"size": CLIP},
    "llava_next_video": {"size": {"shortest_edge": 16}, "crop_size": CLIP},
    "smolvlm": {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}},
    "internvl": {"size": CLIP},
    "video_llama_3": {**QWEN, "temporal_patch_size": 1},
}
TEXT = {
    "llava_onevision": {"num_image_tokens": 16},
    "llava_next_video": {"patch_size": 4},
    "smolvlm": {"image_seq_len": 4},
    "internvl": {"image_seq_length": 4},
}


def tokenizer(name):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    qwen = name.startswith("qwen") or name == "video_llama_3"
    video, image = ("<|video_pad|>", "<|image_pad|>") if qwen else ("<video>", "<image>")
    marks = {
        "[PAD]": tiny.PAD, "<s>": 1, "[UNK]": 2, "</s>": 99, "<|vision_start|>": 80, "<|vision_end|>": 81,
        "<fake_token_around_image>": 82, "<global-img>": 83, "<end_of_utterance>": 84, "<img>": 85, "</img>": 86,
        video: tiny.VIDEO, image: tiny.IMAGE,
    }  # fmt: skip
    if name == "internvl":
        marks = {**marks, "<IMG_CONTEXT>": tiny.IMAGE, image: 93}
    vocabulary = marks | {word: i for i, word in enumerate(WORDS.split(), 10)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.decoder = decoders.Fuse()
    more = {}
    if name == "internvl":
        more = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
        more["video_token"] = "<video>"
    special = [mark for mark in marks if mark not in ("[PAD]", "<s>", "[UNK]", "</s>")]
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="[PAD]", unk_token="[UNK]",
        additional_special_tokens=special, **({"extra_special_tokens": more} if more else {}),
    )  # fmt: skip


def template(name):
    if name.startswith("qwen"):
        return TEMPLATE.replace("MARK", "<|vision_start|><|video_pad|><|vision_end|>")
    return TEMPLATE.replace("MARK", "<|video_pad|>" if name == "video_llama_3" else "<video>")


def preparation(name, video=None, text=None, config=None):
    """How frames are prepared, with some settings of one's own; ``{}`` leaves all to the family."""
    kind = family_of_kind(name).preparation
    said = VIDEO[name] if video is None else video
    told = TEXT.get(name, {}) if text is None else text
    config = tiny.model(name).config if config is None else config
    settings = Settings(
        Path("tiny"), {**ALWAYS, **kind.defaults, **said}, told, template(name), tokenizer(name), config
    )
    return kind(settings)


def processing(name, **settings):
    made = preparation(name, **settings)
    return Processing(made.settings.tokenizer, made)


def folder(name, path):
    """A folder as transformers writes it."""
    tiny.model(name).save_pretrained(path)
    tokenizer(name).save_pretrained(path)
    (path / "chat_template.jinja").write_text(template(name))
    (path / "processor_config.json").write_text(json.dumps({**TEXT.get(name, {}), "video_processor": VIDEO[name]}))
    return path


def striped(frames, height, width):
    """A video that everyone who counts can make: uint8 ``[T, 3, H, W]``."""
    t, c, y, x = torch.meshgrid(*map(torch.arange, (frames, 3, height, width)), indexing="ij")
    return ((t * 31 + c * 50 + y * 7 + x * 5) % 256).to(torch.uint8)
