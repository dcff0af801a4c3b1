"""What an answer costs is counted for any language model, those that no cache compressor reads included."""

import torch
from tests.models.test_streaming import make, video

from vxl_lightning.ablation.measuring import _counts


def test_a_model_with_a_sliding_window_is_measured_without_a_cache() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    model = make(None)
    plain = model.plain.config
    model.language_model = MistralForCausalLM(
        MistralConfig(
            vocab_size=plain.vocab_size,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=4,
        )
    ).eval()
    with torch.no_grad():
        counts, kept, _ = _counts(model, video(8), "shape?")
    asked = len(model.layout.chat.question("shape?"))
    prefix = model.prefix(model.project(video(8)), 0)
    assert counts.lm_tokens == len(prefix.place) and int((kept >= 0).sum()) > 0
    assert 0 < counts.kv_length <= len(prefix.embeds) + asked
