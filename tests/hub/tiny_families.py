"""A tiny random model of every family, and a batch of two prompts of different lengths for each, padded on the left."""

import torch

VIDEO, IMAGE, PAD, NEWLINE = 90, 91, 0, 92
TEXT = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 99, "initializer_range": 0.2,
    "max_position_embeddings": 4096,
}  # fmt: skip
MARKS = {"video_token_id": VIDEO, "image_token_id": IMAGE}
M_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
FAMILIES = (
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "llava_onevision", "llava_next_video", "smolvlm", "internvl",
    "video_llama_3",
)  # fmt: skip
FRAMES, HEIGHT, WIDTH = 4, 2, 3
"""Cells of a video where a family lets them be no square; 2 x 2 otherwise."""


def model(name, seed=0):
    import transformers as t

    torch.manual_seed(seed)
    clip = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    if name in ("qwen2_vl", "qwen2_5_vl"):
        vision = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
        more = (
            {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
            if name == "qwen2_vl"
            else {
                "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24, "window_size": 16,
                "fullatt_block_indexes": [1], "tokens_per_second": 2,
            }
        )  # fmt: skip
        config, made = (
            (t.Qwen2VLConfig, t.Qwen2VLForConditionalGeneration)
            if name == "qwen2_vl"
            else (t.Qwen2_5_VLConfig, t.Qwen2_5_VLForConditionalGeneration)
        )
        config = config(text_config={**TEXT, "rope_parameters": M_ROPE}, vision_config={**vision, **more}, **MARKS)
    elif name in ("qwen3_vl", "qwen3_vl_moe"):
        vision = {
            "depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        }  # fmt: skip
        text = {**TEXT, "rope_parameters": M_ROPE, "head_dim": 8}
        if name == "qwen3_vl_moe":
            text |= {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
        config, made = (
            (t.Qwen3VLConfig, t.Qwen3VLForConditionalGeneration)
            if name == "qwen3_vl"
            else (t.Qwen3VLMoeConfig, t.Qwen3VLMoeForConditionalGeneration)
        )
        config = config(text_config=text, vision_config=vision, **MARKS)
    elif name == "llava_onevision":
        vision = {**clip, "model_type": "siglip_vision_model", "image_size": 16, "patch_size": 4}
        vision |= {"vision_use_head": False}
        config = t.LlavaOnevisionConfig(
            vision_config=vision, text_config={**TEXT, "model_type": "qwen2"}, image_token_index=IMAGE,
            video_token_index=VIDEO, vision_feature_layer=-1, vision_feature_select_strategy="full",
            image_grid_pinpoints=[[16, 16]],
        )  # fmt: skip
        made = t.LlavaOnevisionForConditionalGeneration
    elif name == "llava_next_video":
        vision = {**clip, "model_type": "clip_vision_model", "image_size": 16, "patch_size": 4}
        config = t.LlavaNextVideoConfig(
            vision_config=vision, text_config={**TEXT, "model_type": "llama"}, image_token_index=IMAGE,
            video_token_index=VIDEO, image_grid_pinpoints=[[16, 16]],
        )  # fmt: skip
        made = t.LlavaNextVideoForConditionalGeneration
    elif name == "smolvlm":
        config = t.SmolVLMConfig(
            vision_config={**clip, "image_size": 16, "patch_size": 4},
            text_config={**TEXT, "model_type": "llama"}, image_token_id=IMAGE, scale_factor=2, pad_token_id=PAD,
        )  # fmt: skip
        made = t.SmolVLMForConditionalGeneration
    elif name == "internvl":
        config = t.InternVLConfig(
            vision_config={**clip, "image_size": [16, 16], "patch_size": [4, 4]},
            text_config={**TEXT, "model_type": "qwen2"}, image_token_id=IMAGE, image_seq_length=4,
        )  # fmt: skip
        made = t.InternVLForConditionalGeneration
    else:
        config = t.VideoLlama3Config(
            vision_config={**clip, "patch_size": 4}, text_config={**TEXT, "model_type": "qwen2"}, **MARKS
        )  # fmt: skip
        made = t.VideoLlama3ForConditionalGeneration
    found = made(config).eval()
    found.generation_config.eos_token_id = None  # answers are as long as asked for
    found.generation_config.pad_token_id = PAD
    return found


def cells(name):
    """T, H, W of every video of the batch, as the language model sees them."""
    if name.startswith("qwen") or name == "video_llama_3":
        return (FRAMES, HEIGHT, WIDTH), (FRAMES - 1, HEIGHT, WIDTH)
    square = (FRAMES, 2, 2)
    return square, square if name.startswith("llava") else (FRAMES - 1, 2, 2)


def placeholders(name, size, start):
    """Token ids of one video, with what its family writes between frames."""
    t, h, w = size
    if name in ("qwen2_vl", "qwen2_5_vl"):
        return [80, *[VIDEO] * (t * h * w), 81]
    if name in ("qwen3_vl", "qwen3_vl_moe"):
        return [token for frame in range(t) for token in (start + frame, 80, *[VIDEO] * (h * w), 81)]
    if name == "llava_onevision":
        return [VIDEO] * (t * h * w + 1)
    if name == "llava_next_video":
        return [VIDEO] * (t * h * w)
    mark = VIDEO if name == "video_llama_3" else IMAGE
    return [token for frame in range(t) for token in (start + frame, 80, *[mark] * (h * w), 81)]


def inputs(name, seed=1):
    """What a processor would give: two rows of one video each, the second with less text before and after it."""
    made = torch.Generator().manual_seed(seed)
    sizes = cells(name)
    rows = [
        [1, 2, 3, *placeholders(name, sizes[0], 40), 11, 12, 13, 14, 15],
        [1, *placeholders(name, sizes[1], 40), 21, 22, 23],
    ]
    length = max(map(len, rows))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    given = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
    frames = sum(t for t, _, _ in sizes)
    if name.startswith("qwen"):
        grid = torch.tensor([[t, 2 * h, 2 * w] for t, h, w in sizes])
        patches = int(grid.prod(-1).sum())
        given["pixel_values_videos"] = torch.randn(patches, 3 * 2 * 4 * 4, generator=made)
        given["video_grid_thw"] = grid
        given["mm_token_type_ids"] = torch.where(ids == VIDEO, 2, 0)
        if name == "qwen2_5_vl":
            given["second_per_grid_ts"] = [1.0, 2.0]
    elif name == "video_llama_3":
        grid = torch.tensor([[t, 2 * h, 2 * w] for t, h, w in sizes])
        given["pixel_values_videos"] = torch.randn(int(grid.prod(-1).sum()), 3 * 4 * 4, generator=made)
        given["video_grid_thw"] = grid
        given["video_merge_sizes"] = torch.tensor([2, 2])
        given["video_compression_mask"] = torch.ones(sum(t * h * w for t, h, w in sizes), dtype=torch.bool)
    elif name.startswith("llava"):
        given["pixel_values_videos"] = torch.randn(2, FRAMES, 3, 16, 16, generator=made)
    elif name == "smolvlm":
        pixels = torch.randn(2, FRAMES, 3, 16, 16, generator=made)
        pixels[1, FRAMES - 1] = 0  # a row with fewer pictures is filled with empty ones
        given["pixel_values"] = pixels
    else:
        given["pixel_values"] = torch.randn(frames, 3, 16, 16, generator=made)
    return given
