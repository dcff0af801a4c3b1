"""``vxl convert`` there and back on a tiny checkpoint in the released layout, and what it says of broken ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests import released_checkpoint as released

from vxl_lightning import registry
from vxl_lightning.cli.main import main
from vxl_lightning.data.decoding import write_video
from vxl_lightning.models.build import VideoLMConfig
from vxl_lightning.models.pretrained import load_pretrained, save_pretrained
from vxl_lightning.models.released import files
from vxl_lightning.models.released.video_xl_pro import VideoXLPro


def convert(*arguments: object) -> int:
    return main(["convert", "video-xl-pro", *map(str, arguments)])


def everything(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("convert")
    released.write(root / "source", released.tensors())
    assert convert(root / "source", root / "model") == 0
    frames = torch.randint(0, 256, (14, 3, 32, 48), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    write_video(root / "video.mp4", frames, 2.0)
    return root


def test_a_converted_folder_answers_questions(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(world / "model"), str(world / "video.mp4"), "Which shape?", "--choices", "disk,ring"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] in ("disk", "ring")
    # One frame a second: 7 frames, two groups, of whose 288 tokens 0.85 rounded down to a multiple of 16 are read.
    assert "7 frames" in said and "288 tokens" in said and "240 tokens into the language model" in said
    assert main(["ask", str(world / "model"), str(world / "video.mp4"), "When?"]) == 0


def test_the_way_back_gives_the_same_tensors_names_and_files(world: Path, tmp_path: Path) -> None:
    assert convert(world / "model", tmp_path / "back", "--back") == 0
    before, after = everything(world / "source"), everything(tmp_path / "back")
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype and torch.equal(after[name], tensor), name
    for file in (f for f in (world / "source").iterdir() if f.suffix != ".safetensors"):
        assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes()


def test_a_model_saved_again_in_full_goes_back_too(world: Path, tmp_path: Path) -> None:
    loaded = load_pretrained(world / "model")
    model, config = loaded.model, VideoLMConfig.from_plain(loaded.config)
    model.projector.layers[0].bias.data.add_(1)
    save_pretrained(tmp_path / "tuned", model, config, encoder=loaded.encoder, fps=loaded.fps, merge=True)
    assert convert(tmp_path / "tuned", tmp_path / "back", "--back") == 2
    shutil.copytree(world / "model" / "released", tmp_path / "tuned" / "released")
    assert convert(tmp_path / "tuned", tmp_path / "back", "--back") == 0
    before, after = everything(world / "source"), everything(tmp_path / "back")
    assert set(before) == set(after)
    changed = [name for name, tensor in before.items() if not torch.equal(after[name].float(), tensor.float())]
    assert changed == ["model.mm_projector.0.bias"]


def test_shards_are_read_and_written(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.write_weights, "__defaults__", (150_000,))
    weights = released.tensors()
    released.write(tmp_path / "source", weights, shards=3)
    assert convert(tmp_path / "source", tmp_path / "model") == 0
    assert (
        load_file(tmp_path / "model" / "model.safetensors").keys()
        == load_file(world / "model" / "model.safetensors").keys()
    )
    assert convert(tmp_path / "model", tmp_path / "back", "--back") == 0
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == set(weights) and len(set(index.values())) > 2
    after = everything(tmp_path / "back")
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())


def test_weights_land_where_the_release_has_them(world: Path) -> None:
    loaded, weights = load_pretrained(world / "model"), released.tensors()
    model: Any = loaded.model
    assert isinstance(model, VideoXLPro) and loaded.fps == 1.0
    blocks = model.compressor.blocks
    key = weights["model.sae.encoder.3.k.weight"].float()[:, :, 0, 0, 0]
    assert torch.equal(blocks[3].qkv.weight[32:64], key)
    conv = weights["model.sae.encoder.2.conv.weight"].float()
    assert torch.equal(blocks[2].weight[2, 0, 1], conv[:, :, 2, 0, 1].T)
    assert torch.equal(model.selector.time.weight, weights["model.WindowTimeToTokenAttention.q_proj.weight"].float())
    assert torch.equal(model.embedding.weight, weights["model.embed_tokens.weight"].float())
    assert loaded.encoder is not None
    encoder = registry.build("encoder", loaded.encoder)
    assert encoder.grid == (24, 24) and len(encoder.encoder.layers) == 2
    patch = weights[f"{released.TOWER}.embeddings.patch_embedding.weight"].float()
    assert torch.equal(encoder.embeddings.patch_embedding.weight, patch)
    assert model.plain.config.rope_parameters["rope_theta"] == 1e6


def test_keep_pad_and_context_are_settings(world: Path, tmp_path: Path) -> None:
    assert convert(world / "source", tmp_path / "model", "--keep", "0.7", "--pad", "spread", "--context", "99") == 0
    model: Any = load_pretrained(tmp_path / "model").model
    assert model.plain.config.max_position_embeddings == 99
    assert model.prompt.select_share == 0.7 and model.compressor.config.pad == "spread"


def test_an_untied_head_is_needed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, weights = released.CONFIG | {"tie_word_embeddings": False}, released.tensors()
    released.write(tmp_path / "without", weights, config=config)
    assert convert(tmp_path / "without", tmp_path / "model") == 2
    assert "1 missing: lm_head.weight" in capsys.readouterr().err
    head = torch.randn(released.VOCABULARY, released.HIDDEN).bfloat16()
    released.write(tmp_path / "with", weights | {"lm_head.weight": head}, config=config)
    assert convert(tmp_path / "with", tmp_path / "model") == 0
    model: Any = load_pretrained(tmp_path / "model").model
    assert torch.equal(model.plain.lm_head.weight, head.float())


def test_everything_wrong_with_a_checkpoint_is_named_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = released.tensors()
    del weights["model.text_mlp.0.bias"], weights["model.sae.encoder.4.qkv.weight"]
    weights["model.beacon.weight"] = torch.zeros(1)
    weights["model.mm_projector.0.weight"] = torch.zeros(32, 31)
    released.write(tmp_path / "source", weights)
    assert convert(tmp_path / "source", tmp_path / "model") == 2
    error = capsys.readouterr().err
    assert "2 missing: model.sae.encoder.4.qkv.weight, model.text_mlp.0.bias" in error
    assert "1 unknown: model.beacon.weight" in error
    assert "model.mm_projector.0.weight is [32, 31] and should be [32, 32]" in error
    assert [f.name for f in tmp_path.iterdir()] == ["source"]


def test_a_failure_on_the_way_leaves_nothing(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("vxl_lightning.models.released.convert.write_weights", full)
    assert convert(world / "source", tmp_path / "model") == 2
    assert list(tmp_path.iterdir()) == []


def broken(root: Path, **config: Any) -> Path:
    folder = root / "broken"
    return released.write(folder, released.tensors(), config=released.CONFIG | config)


def test_mistakes_are_one_line_and_exit_code_2(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: object) -> str:
        assert convert(*arguments) == 2
        error = capsys.readouterr().err.strip()
        assert len(error.splitlines()) == 1
        return error

    out = tmp_path / "out"
    assert "is no folder" in said(tmp_path / "nowhere", out)
    assert "exists already" in said(world / "source", world / "model")
    assert "make it first" in said(world / "source", tmp_path / "a" / "b")
    assert "--keep=1.5 must be a share" in said(world / "source", out, "--keep", "1.5")
    assert "--context=0 must be at least 1" in said(world / "source", out, "--context", "0")
    assert "leave it out" in said(world / "model", out, "--back", "--keep", "0.5")
    assert "only a folder that 'vxl convert' wrote" in said(world / "source", out, "--back")
    assert "mm_spatial_pool_stride=3 is not 2" in said(broken(tmp_path, mm_spatial_pool_stride=3), out)
    (tmp_path / "broken" / "config.json").write_text("{")
    assert "not JSON" in said(tmp_path / "broken", out)
    (tmp_path / "broken" / "config.json").write_text(json.dumps({"hidden_size": 8}))
    assert "no intermediate_size" in said(tmp_path / "broken", out)
    (tmp_path / "broken" / "config.json").write_text(json.dumps(released.CONFIG))
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"half")
    assert "damaged" in said(tmp_path / "broken", out)
    (tmp_path / "broken" / "model.safetensors").unlink()
    assert "no model.safetensors and no" in said(tmp_path / "broken", out)
    assert not out.exists()
