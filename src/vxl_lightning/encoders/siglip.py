"""SigLIP's vision tower as a frame encoder, from a local folder.

Follows Video-XL-Pro: pixels with mean and standard deviation 0.5, hidden state after the last block but one, without
the final layer norm, its 27x27 grid resized bilinearly to 24x24. Frames are resized while they are decoded
(bilinear there, bicubic in the original).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.encoders.base import EncodedFrames, Encoder
from vxl_lightning.errors import UserError


class SiglipEncoder(Encoder):
    """Any SigLIP checkpoint in transformers' format; with ``importance``, the attention each cell receives."""

    gives_importance: ClassVar[bool] = True
    origin: ClassVar[str] = "SigLIP (Apache-2.0), arXiv:2303.15343; layer and grid as Video-XL-Pro, arXiv:2503.18478"
    locations: ClassVar[tuple[str, ...]] = ("path",)

    @dataclass(frozen=True, kw_only=True)
    class Config(Encoder.Config):
        path: str = ""
        """Folder of the checkpoint (config.json and safetensors); nothing is ever downloaded."""
        layer: int = -2
        """Hidden state to take, as transformers counts them: -1 after the last block, -2 after the one before."""
        grid: int | None = None
        """Rows and columns to resize the grid to; Video-XL-Pro takes 24 of 27. None keeps it."""
        importance: bool = False
        """Also give the attention each cell receives (slower: attention is then computed in the open)."""

        def __post_init__(self) -> None:
            if self.layer >= 0:
                raise ValueError(f"layer={self.layer} must be negative, counted from the end: -2 is usual")
            if self.grid is not None and self.grid < 1:
                raise ValueError(f"grid={self.grid} must be at least 1, or null to keep the encoder's own")

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        tower = _load(config)
        vision = tower.config
        # Blocks beyond the layer asked for are dropped; their weights then cost nothing either.
        blocks = vision.num_hidden_layers + 1 + config.layer
        if blocks < 1:
            raise UserError(
                f"layer={config.layer}: {config.path} has {vision.num_hidden_layers} blocks; allowed are -1 to "
                f"{-vision.num_hidden_layers}"
            )
        self.embeddings, self.encoder = tower.embeddings, tower.encoder
        self.encoder.layers = self.encoder.layers[:blocks]
        self.frame_size = (vision.image_size, vision.image_size)
        self._own = vision.image_size // vision.patch_size
        self.grid = (config.grid or self._own,) * 2
        self.dim = vision.hidden_size
        self._attention: Tensor | None = None
        if config.importance:
            self.encoder.layers[-1].self_attn.register_forward_hook(self._keep_attention)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "SiglipEncoder":
        """Stays in evaluation mode: the encoder is frozen."""
        return super().train(False)

    def _keep_attention(self, module: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        self._attention = output[1]

    def encode(self, frames: Tensor) -> EncodedFrames:
        pixels = (frames.to(self.embeddings.patch_embedding.weight.dtype) / 255 - 0.5) / 0.5
        hidden = self.encoder(inputs_embeds=self.embeddings(pixels)).last_hidden_state
        features = self._resized(hidden.unflatten(1, (self._own, self._own)))
        if self._attention is None:
            return EncodedFrames(features)
        # [T, heads, queries, keys]: what a key receives, averaged over who gives it. Sums to one over a frame.
        mass, self._attention = self._attention.float().mean((1, 2)), None
        mass = self._resized(mass.unflatten(1, (self._own, self._own))[..., None])[..., 0]
        return EncodedFrames(features, mass / mass.sum((1, 2), keepdim=True))

    def _resized(self, grid: Tensor) -> Tensor:
        return grid if self.grid == (self._own, self._own) else resized(grid, self.grid)


def resized(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """``[T, h, w, D]`` to the rows and columns of ``size``, bilinearly in float32, back in its own type."""
    channels_first = grid.float().permute(0, 3, 1, 2)
    changed = F.interpolate(channels_first, size, mode="bilinear", align_corners=False)
    return changed.permute(0, 2, 3, 1).to(grid.dtype)


def _load(config: SiglipEncoder.Config) -> Any:
    if not config.path or not (Path(config.path) / "config.json").is_file():
        raise UserError(
            f"encoder siglip: path={config.path!r} is no folder with a config.json; download a SigLIP checkpoint "
            "(google/siglip-so400m-patch14-384) and give its folder"
        )
    from transformers import SiglipVisionModel
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # or each weight of a full model's text tower is reported as unexpected
    try:
        tower, report = SiglipVisionModel.from_pretrained(
            config.path,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="eager" if config.importance else "sdpa",
            # Full models, and towers saved by transformers 4, keep the tower under this name.
            key_mapping={r"^vision_model\.": ""},
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"encoder siglip: {config.path} is no SigLIP checkpoint in safetensors ({reason})") from None
    finally:
        logging.set_verbosity(verbosity)
    # The head is not used, and some checkpoints leave it out.
    missing = sorted(k for k in report["missing_keys"] if not k.startswith(("head.", "post_layernorm.")))
    if missing:
        raise UserError(
            f"encoder siglip: {config.path} lacks {len(missing)} of the vision tower's weights, first {missing[0]!r}; "
            "take a complete SigLIP checkpoint"
        )
    return tower
