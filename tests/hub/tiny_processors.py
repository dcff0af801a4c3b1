"""A processor of every family, around a tokenizer of a few words; and folders that hold model and processor."""

from tests.hub import tiny_families as tiny

WORDS = "which shape what colour red blue disk ring star a ? ."
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'video' %}MARK{% else %} {{ c['text'] }}{% endif %}{% endfor %}{% endfor %} ."
)
QWEN_MARK = "<|vision_start|><|video_pad|><|vision_end|>"


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


def processor(name):
    import transformers as t

    words, clip = tokenizer(name), {"height": 16, "width": 16}
    mark = QWEN_MARK if name.startswith("qwen") else "<|video_pad|>" if name == "video_llama_3" else "<video>"
    more = {"tokenizer": words, "chat_template": TEMPLATE.replace("MARK", mark)}
    size = {"shortest_edge": 16, "longest_edge": 4096}
    if name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"):
        patches = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2, "size": size}
        kind, video = {
            "qwen2_vl": (t.Qwen2VLProcessor, t.Qwen2VLVideoProcessor),
            "qwen2_5_vl": (t.Qwen2_5_VLProcessor, t.Qwen2VLVideoProcessor),
        }.get(name, (t.Qwen3VLProcessor, t.Qwen3VLVideoProcessor))
        return kind(image_processor=t.Qwen2VLImageProcessor(**patches), video_processor=video(**patches), **more)
    if name == "video_llama_3":
        patches = {"patch_size": 4, "temporal_patch_size": 1, "merge_size": 2, "size": size}
        return t.VideoLlama3Processor(
            image_processor=t.VideoLlama3ImageProcessor(**patches),
            video_processor=t.VideoLlama3VideoProcessor(**patches), **more,
        )  # fmt: skip
    if name == "llava_onevision":
        return t.LlavaOnevisionProcessor(
            image_processor=t.LlavaOnevisionImageProcessor(size=clip),
            video_processor=t.LlavaOnevisionVideoProcessor(size=clip), num_image_tokens=16,
            vision_feature_select_strategy="full", **more,
        )  # fmt: skip
    if name == "llava_next_video":
        return t.LlavaNextVideoProcessor(
            image_processor=t.LlavaNextImageProcessor(size={"shortest_edge": 16}, crop_size=clip),
            video_processor=t.LlavaNextVideoVideoProcessor(size={"shortest_edge": 16}, crop_size=clip),
            patch_size=4, vision_feature_select_strategy="default", **more,
        )  # fmt: skip
    if name == "internvl":
        return t.InternVLProcessor(
            image_processor=t.GotOcr2ImageProcessor(size=clip), video_processor=t.InternVLVideoProcessor(size=clip),
            image_seq_length=4, **more,
        )  # fmt: skip
    edge = {"size": {"longest_edge": 16}, "max_image_size": {"longest_edge": 16}}
    return t.SmolVLMProcessor(
        image_processor=t.SmolVLMImageProcessor(**edge), image_seq_len=4,
        video_processor=t.SmolVLMVideoProcessor(
            **edge, video_sampling={"fps": 1, "max_frames": 64, "video_size": edge["size"]}
        ), **more,
    )  # fmt: skip


class Plain:
    """What stands in for LLaVA-NeXT-Video's processor where torchvision, which that needs, is not installed."""

    def __init__(self):
        self.tokenizer, self.told = tokenizer("llava_next_video"), []

    def apply_chat_template(self, messages, add_generation_prompt):
        (message,) = messages
        return "".join("<video>" if c["type"] == "video" else f" {c['text']}" for c in message["content"]) + " ."

    def __call__(self, text, videos, **told):
        import torch

        self.told.append(told)
        (frames,) = videos
        ids = self.tokenizer(text[0].replace("<video>", "<video>" * (4 * len(frames))), return_tensors="pt")
        pixels = torch.nn.functional.interpolate(frames.float() / 127.5 - 1, (16, 16))
        return {**{k: ids[k] for k in ("input_ids", "attention_mask")}, "pixel_values_videos": pixels[None]}


def folder(name, path):
    tiny.model(name).save_pretrained(path)
    processor(name).save_pretrained(path)
    return path
