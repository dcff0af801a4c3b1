"""SigLIP wrapper on a tiny randomly initialised checkpoint."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

from vxl_lightning.encoders.siglip import SiglipEncoder
from vxl_lightning.errors import UserError

VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 42,
    "patch_size": 14,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("siglip")
    SiglipVisionModel(SiglipVisionConfig(**VISION)).save_pretrained(path)
    return path


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 42, 42), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def encoder(path: Path, **config: object) -> SiglipEncoder:
    return SiglipEncoder(SiglipEncoder.Config(path=str(path), **config))


@pytest.mark.parametrize("layer", [-1, -2, -3])
def test_layer_is_the_hidden_state_transformers_names(checkpoint: Path, frames: torch.Tensor, layer: int) -> None:
    reference = SiglipVisionModel.from_pretrained(checkpoint)
    states: list[torch.Tensor] = []
    for block in reference.encoder.layers:
        block.register_forward_hook(lambda m, i, o: states.append(o[0] if isinstance(o, tuple) else o))
    with torch.inference_mode():
        reference((frames.float() / 255 - 0.5) / 0.5)
    got = encoder(checkpoint, layer=layer)(frames).features
    assert got.shape == (5, 3, 3, 16)
    torch.testing.assert_close(got, states[layer].unflatten(1, (3, 3)))


def test_grid_is_resized_bilinearly(checkpoint: Path, frames: torch.Tensor) -> None:
    own = encoder(checkpoint)(frames).features
    resized = encoder(checkpoint, grid=2)
    want = torch.nn.functional.interpolate(own.permute(0, 3, 1, 2), (2, 2), mode="bilinear", align_corners=False)
    assert resized.grid == (2, 2)
    torch.testing.assert_close(resized(frames).features, want.permute(0, 2, 3, 1))


def test_importance_is_attention_received(checkpoint: Path, frames: torch.Tensor) -> None:
    plain, both = encoder(checkpoint)(frames), encoder(checkpoint, importance=True)(frames)
    assert plain.importance is None
    torch.testing.assert_close(both.features, plain.features, atol=1e-5, rtol=1e-4)
    assert both.importance is not None and both.importance.shape == (5, 3, 3)
    torch.testing.assert_close(both.importance.sum((1, 2)), torch.ones(5))
    assert both.importance.std() > 0


def test_chunks_equal_the_whole(checkpoint: Path, frames: torch.Tensor) -> None:
    one, five = encoder(checkpoint, batch_frames=1), encoder(checkpoint, batch_frames=5)
    torch.testing.assert_close(one(frames).features, five(frames).features)


def test_vision_tower_of_a_full_model(tmp_path: Path, frames: torch.Tensor) -> None:
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 8,
    }
    full = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
    full.save_pretrained(tmp_path)
    full.vision_model.save_pretrained(tmp_path / "tower")
    whole, tower = encoder(tmp_path), encoder(tmp_path / "tower")
    torch.testing.assert_close(whole(frames).features, tower(frames).features)
    assert whole.fingerprint() == tower.fingerprint()


def test_frozen_and_fingerprinted(checkpoint: Path) -> None:
    made = encoder(checkpoint)
    assert not made.train().training
    assert not any(p.requires_grad for p in made.parameters())
    assert made.fingerprint() == encoder(checkpoint).fingerprint() != encoder(checkpoint, layer=-1).fingerprint()


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"path": ""}, "download a SigLIP checkpoint"),
        ({"path": "google/siglip-base-patch16-224"}, "is no folder"),
        ({"layer": -5}, "allowed are -1 to -3"),
        ({"layer": 0}, "must be negative"),
    ],
)
def test_errors_name_the_fix(checkpoint: Path, config: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SiglipEncoder(SiglipEncoder.Config(**({"path": str(checkpoint)} | config)))


def test_incomplete_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["encoder.layers.1.mlp.fc1.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    with pytest.raises(UserError, match=r"lacks 1 .*encoder.layers.1.mlp.fc1.bias"):
        encoder(tmp_path)


def test_checkpoint_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="no SigLIP checkpoint"):
        encoder(tmp_path)
