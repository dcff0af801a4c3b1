"""A random Llama of a few thousand parameters and a tokenizer of single bytes, made in a moment."""

import torch

from vxl_lightning.data.schema import Sample, Turn

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
COLOURS, SHAPES, DIM = ["red", "blue"], ["disk", "ring", "star"], 16


def tokenizer(template=TEMPLATE):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|end|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({w: i for i, w in enumerate([*special, *letters])}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|end|>", eos_token="<|im_end|>", pad_token="<|end|>", unk_token="<|end|>",
        additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    made.chat_template = template
    return made


def language_model(seed=0):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
        initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def folder(path):
    """Both, saved as a transformers folder."""
    language_model().save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def sample(index=0, time=0.5, colour="red", shape="disk"):
    pairs = [("shape?", shape), ("colour?", colour)]
    turns = [t for q, a in pairs for t in (Turn("human", q), Turn("gpt", a))]
    turns[0] = Turn("human", "<image>\n" + turns[0].text)
    needle = {"shape": shape, "colour": colour, "frame": int(time), "time": time, "x": 0.4, "y": 0.4, "radius": 0.1}
    meta = {"task": ["what", "colour"], "choices": [SHAPES, COLOURS], "needles": [needle]}
    return Sample(f"clip-{index}", f"clip-{index}.mp4", tuple(turns), meta)
