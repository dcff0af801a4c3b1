"""A language model of a few thousand parameters and shards of a few clips, made in a second."""

import torch

from vxl_lightning.data.decoding import write_video
from vxl_lightning.data.manifest import Encoding
from vxl_lightning.data.schema import Sample, Turn
from vxl_lightning.data.shards import ShardWriter

DIM, FRAMES, SIDE = 16, 8, 4
SHAPES, COLOURS, TIMES = ["circle", "square", "star"], ["red", "green", "blue"], ["0 s", "2 s"]


def language_model(folder):
    """A random Llama and a word-level tokenizer, as a transformers folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        *SHAPES,
        *COLOURS,
        *["0", "2", "4", "6", "s", "Which", "shape", "colour", "When", "?", "Question", "Answer", ":"],
    ]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _sample(index, generator):
    def pick(options):
        return options[int(torch.randint(len(options), (), generator=generator))]

    shape, colour, group = pick(SHAPES), pick(COLOURS), int(torch.randint(2, (), generator=generator))
    pairs = [("Which shape ?", shape), ("Which colour ?", colour), ("When ?", TIMES[group])]
    turns = [t for q, a in pairs for t in (Turn("human", q), Turn("gpt", a))]
    turns[0] = Turn("human", "<image>\n" + turns[0].text)
    needle = {"shape": shape, "colour": colour, "frame": group * 4 + 1, "time": group * 2 + 0.5, "x": 0.4, "y": 0.4}
    meta = {
        "task": ["what", "colour", "when"],
        "choices": [SHAPES, COLOURS, TIMES],
        "needles": [needle | {"radius": 0.1}],
        "answer_span": [None, None, None],
    }
    return Sample(f"clip-{index}", f"clip-{index}.mp4", tuple(turns), meta)


def shards(root, clips, seed, fingerprint="tiny", encoder=None):
    """Feature shards whose needle is written into one cell; the shape and the colour can be read from it."""
    generator = torch.Generator().manual_seed(seed)
    encoding = Encoding(encoder or {"name": "tiny"}, fingerprint, 2.0, FRAMES, (SIDE, SIDE), DIM)
    with ShardWriter(root, "features", encoding) as writer:
        for i in range(clips):
            sample = _sample(i, generator)
            features = 0.3 * torch.randn(FRAMES, SIDE, SIDE, DIM, generator=generator)
            needle = sample.meta["needles"][0]
            features[needle["frame"], 1, 1, SHAPES.index(needle["shape"])] += 5
            features[needle["frame"], 1, 1, 3 + COLOURS.index(needle["colour"])] += 5
            writer.add_features(sample, features, torch.arange(FRAMES) / 2)
    return root


def video_shards(root, clips, seed, folder):
    """Video shards with the keys of `shards` of the same seed; the pictures are noise."""
    generator = torch.Generator().manual_seed(seed)
    with ShardWriter(root, "video") as writer:
        for i in range(clips):
            sample = _sample(i, generator)
            torch.randn(FRAMES, SIDE, SIDE, DIM, generator=generator)
            frames = torch.randint(0, 256, (FRAMES, 3, 64, 64), generator=torch.Generator().manual_seed(i))
            write_video(folder / "clip.mp4", frames.to(torch.uint8), 2.0)
            writer.add_video(sample, folder / "clip.mp4")
    return root
