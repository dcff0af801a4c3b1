import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests import tiny_lm

from vxl_lightning import registry
from vxl_lightning.errors import UserError
from vxl_lightning.models.build import AdapterConfig, VideoLMConfig, build_video_lm
from vxl_lightning.models.language import load_language_model
from vxl_lightning.models.pretrained import load_compressor, load_pretrained, save_pretrained
from vxl_lightning.tokens import VideoGrid

DTS = {"name": "dts", "retention": 1 / 16, "reduction": "saliency", "depth": 1}


@pytest.fixture
def config(tmp_path):
    folder = str(tiny_lm.folder(tmp_path / "lm"))
    return VideoLMConfig(dim=tiny_lm.DIM, language_model=folder, compressor=DTS, adapter=AdapterConfig(rank=2))


def stirred(module):
    torch.manual_seed(3)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if not name.startswith("language_model") or "lora_" in name:
                p.add_(0.1 * torch.randn_like(p))
    return module.eval()


def scores(model):
    grid = VideoGrid.of(torch.randn(1, 8, 4, 4, tiny_lm.DIM, generator=torch.Generator().manual_seed(0)))
    return model.answers(grid, [["shape?"]], [[tiny_lm.SHAPES]])[0][0]


@pytest.mark.parametrize("merge", [False, True])
def test_video_lm_round_trip(config, tmp_path, merge):
    model = stirred(build_video_lm(config))
    before = scores(model)
    save_pretrained(tmp_path / "m", model, config, encoder={"name": "siglip"}, merge=merge)
    loaded = load_pretrained(tmp_path / "m")
    assert torch.allclose(scores(loaded.model), before, atol=1e-5)
    assert loaded.encoder == {"name": "siglip"}
    assert (tmp_path / "m" / "language_model").exists() == merge
    assert (tmp_path / "m" / "model.safetensors").stat().st_size < 60_000  # the frozen language model is not in it


@pytest.mark.parametrize("merge", [False, True])
def test_layers_trained_whole_are_saved(config, tmp_path, merge):
    config = replace(config, adapter=AdapterConfig(rank=0, whole=["self_attn"]))
    model = stirred(build_video_lm(config))
    assert model.adapter and all("self_attn" in name for name in model.adapter)
    with torch.no_grad():
        for p in model.adapter.values():
            p.add_(0.1 * torch.randn_like(p))
    before = scores(model)
    save_pretrained(tmp_path / "m", model, config, merge=merge)
    assert torch.allclose(scores(load_pretrained(tmp_path / "m").model), before, atol=1e-5)


def test_an_unknown_layer_is_refused(config):
    with pytest.raises(UserError, match="no layer 'attention'"):
        build_video_lm(replace(config, adapter=AdapterConfig(rank=0, whole=["attention"])))


def test_another_compressor_in_a_saved_model(config, tmp_path):
    model = stirred(build_video_lm(config))
    save_pretrained(tmp_path / "m", model, config)
    other = load_pretrained(tmp_path / "m", compressor={"name": "pool", "retention": 1 / 16})
    assert type(other.model.compressor).__name__ == "Pool"
    assert other.config["compressor"]["name"] == "pool"
    ours, theirs = model.projector.state_dict(), other.model.projector.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_compressor_round_trip_and_into_a_video_lm(config, tmp_path):
    module = stirred(registry.build("compressor", DTS, dim=tiny_lm.DIM))
    save_pretrained(tmp_path / "c", module, DTS)
    loaded = load_pretrained(tmp_path / "c").model
    model = build_video_lm(config)
    load_compressor(tmp_path / "c", model.compressor)
    save_pretrained(tmp_path / "m", model, config)
    again = registry.build("compressor", DTS, dim=tiny_lm.DIM)
    load_compressor(tmp_path / "m", again)
    for name, tensor in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor) and torch.equal(again.state_dict()[name], tensor)


def test_same_model_same_bytes(config, tmp_path):
    for name in ("a", "b"):
        torch.manual_seed(0)
        save_pretrained(tmp_path / name, stirred(build_video_lm(config)), config)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_files_of_the_encoder_go_with_the_model(tmp_path):
    (tmp_path / "fitted.safetensors").write_bytes(b"components")
    spec = {"name": "efficientnet_lite0", "projection": str(tmp_path / "fitted.safetensors")}
    module = registry.build("compressor", DTS, dim=tiny_lm.DIM)
    save_pretrained(tmp_path / "a", module, DTS, encoder=spec, fps=4.0)
    (tmp_path / "fitted.safetensors").unlink()
    (tmp_path / "a").rename(tmp_path / "b")
    loaded = load_pretrained(tmp_path / "b")
    assert Path(loaded.encoder["projection"]).read_bytes() == b"components" and loaded.fps == 4.0
    save_pretrained(tmp_path / "b", module, DTS, encoder=loaded.encoder)
    assert Path(load_pretrained(tmp_path / "b").encoder["projection"]).read_bytes() == b"components"


@pytest.mark.parametrize("content", ["[]", '{"format": 1}', '{"format": 1, "kind": "x", "config": {}}', "\x80"])
def test_a_damaged_folder_is_one_error(tmp_path, content):
    save_pretrained(tmp_path / "c", registry.build("compressor", DTS, dim=tiny_lm.DIM), DTS)
    (tmp_path / "c" / "config.json").write_bytes(content.encode("latin1"))
    with pytest.raises(UserError, match=r"config\.json"):
        load_pretrained(tmp_path / "c")


def test_damaged_weights_are_one_error(tmp_path):
    save_pretrained(tmp_path / "c", registry.build("compressor", DTS, dim=tiny_lm.DIM), DTS)
    (tmp_path / "c" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        load_pretrained(tmp_path / "c")


def test_users_mistakes(config, tmp_path):
    with pytest.raises(UserError, match="no config"):
        load_pretrained(tmp_path / "missing")
    save_pretrained(tmp_path / "c", registry.build("compressor", DTS, dim=tiny_lm.DIM), DTS)
    with pytest.raises(UserError, match="do not fit"):
        load_compressor(tmp_path / "c", registry.build("compressor", {**DTS, "depth": 2}, dim=tiny_lm.DIM))
    with pytest.raises(UserError, match="do not fit"):
        load_compressor(tmp_path / "c", registry.build("compressor", DTS, dim=32))
    (tmp_path / "c" / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        load_pretrained(tmp_path / "c")
    (tmp_path / "c" / "config.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match="format"):
        load_pretrained(tmp_path / "c")
    with pytest.raises(UserError, match="language_model="):
        load_language_model(str(tmp_path))
    with pytest.raises(UserError, match="targets="):
        build_video_lm(
            VideoLMConfig(dim=8, language_model=config.language_model, adapter=AdapterConfig(targets=["no"]))
        )
