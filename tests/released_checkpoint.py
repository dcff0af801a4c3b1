"""A tiny folder in Video-XL-Pro's released layout, its names written out: 27x27 cells of the tower, few channels."""

import json

import torch
from safetensors.torch import save_file
from tests import tiny_lm

DIM, HIDDEN, VOCABULARY = 32, 32, 259
TOWER = "model.vision_tower.vision_tower.vision_model"
CONFIG = {
    "architectures": ["LlavaQwenForCausalLM"],
    "model_type": "llava_qwen",
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 2,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "mm_hidden_size": DIM,
    "mm_projector_type": "mlp2x_gelu",
    "mm_patch_merge_type": "unires",
    "mm_spatial_pool_mode": "average",
    "mm_spatial_pool_stride": 2,
    "auto_map": {"AutoModelForCausalLM": "modeling.LlavaQwenForCausalLM"},
    "vision_config": {
        "hidden_size": DIM,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 54,
        "patch_size": 2,
    },
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint."""
    c, d = DIM, HIDDEN
    made: dict[str, tuple[int, ...]] = {"model.sae.temporal_encoding": (4, c), "model.image_newline": (d,)}

    def layer(name: str, out: int, *inner: int) -> None:
        made[f"{name}.weight"] = (out, *inner)
        made[f"{name}.bias"] = (out,)

    for i in (0, 3):
        layer(f"model.sae.encoder.{i}.norm", c)
        for part in ("q", "k", "v", "proj_out"):
            layer(f"model.sae.encoder.{i}.{part}", c, c, 1, 1, 1)
        layer(f"model.sae.encoder.{i + 1}.norm", c)
        layer(f"model.sae.encoder.{i + 1}.qkv", 3 * c, c, 1)
        layer(f"model.sae.encoder.{i + 1}.proj_out", c, c, 1)
        for kind in ("k", "v"):
            made[f"model.sae.encoder.{i + 1}.relative_position_{kind}.embeddings_table"] = (129, c)
        layer(f"model.sae.encoder.{i + 2}.conv", c, c, 3, 3, 3)
    layer("model.mm_projector.0", d, c)
    layer("model.mm_projector.2", d, d)
    layer("model.text_mlp.0", d, d)
    for part in ("q", "k", "v", "out"):
        layer(f"model.WindowTimeToTokenAttention.{part}_proj", d, d)
    layer(f"{TOWER}.embeddings.patch_embedding", c, 3, 2, 2)
    made[f"{TOWER}.embeddings.position_embedding.weight"] = (729, c)
    for i in range(2):  # the release cuts off the third block, and the head
        at = f"{TOWER}.encoder.layers.{i}"
        layer(f"{at}.layer_norm1", c)
        layer(f"{at}.layer_norm2", c)
        for part in ("q", "k", "v", "out"):
            layer(f"{at}.self_attn.{part}_proj", c, c)
        layer(f"{at}.mlp.fc1", 40, c)
        layer(f"{at}.mlp.fc2", c, 40)
    layer(f"{TOWER}.post_layernorm", c)
    made["model.embed_tokens.weight"] = (VOCABULARY, d)
    for i in range(2):
        at = f"model.layers.{i}"
        layer(f"{at}.self_attn.q_proj", d, d)
        layer(f"{at}.self_attn.k_proj", d // 2, d)
        layer(f"{at}.self_attn.v_proj", d // 2, d)
        made[f"{at}.self_attn.o_proj.weight"] = (d, d)
        made |= {f"{at}.mlp.gate_proj.weight": (48, d), f"{at}.mlp.up_proj.weight": (48, d)}
        made |= {f"{at}.mlp.down_proj.weight": (d, 48)}
        made |= {f"{at}.input_layernorm.weight": (d,), f"{at}.post_attention_layernorm.weight": (d,)}
    made["model.norm.weight"] = (d,)
    return made


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(shape, generator=generator) * 0.2 + ("norm" in name and name.endswith("weight"))).bfloat16()
        for name, shape in shapes().items()
    }


def write(folder, weights, shards=1, config=CONFIG):
    """The folder as it is downloaded: configuration, tokenizer, weights in one file or several."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"temperature": 0.01}')
    tiny_lm.tokenizer(template=None).save_pretrained(folder)
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names, where = sorted(weights), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file({n: weights[n] for n in names[i::shards]}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names[i::shards], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder
