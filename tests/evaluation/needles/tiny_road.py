"""An encoder of mean colours, a tiny language model behind it, and a haystack of noise: all made in a moment."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from tests import tiny_lm

from vxl_lightning import registry
from vxl_lightning.data.decoding import write_video
from vxl_lightning.encoders.base import EncodedFrames, Encoder
from vxl_lightning.evaluation.models import Fitted
from vxl_lightning.evaluation.needles import haystack
from vxl_lightning.models.prefix import PromptConfig
from vxl_lightning.models.projector import Projector
from vxl_lightning.models.video_lm import VideoLM

FPS, FRAMES = 4.0, 72


class MeanColours(Encoder):
    """Each cell's mean colour through a fixed matrix."""

    dim, grid, frame_size = tiny_lm.DIM, (4, 4), (64, 64)

    def __init__(self):
        super().__init__(self.Config())
        self.mix = torch.randn(3, self.dim, generator=torch.Generator().manual_seed(0))

    def encode(self, frames):
        cells = F.avg_pool2d(frames.float() / 255, 16).permute(0, 2, 3, 1)
        return EncodedFrames(cells @ self.mix)


def hay(folder, frames=FRAMES):
    path = folder / "hay.mp4"
    pixels = torch.randint(0, 256, (frames, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    smooth = F.interpolate(pixels.float(), (64, 64), mode="bilinear").to(torch.uint8)
    write_video(path, smooth, FPS)
    return haystack.given(path, FPS, frames)


def model(compressor="pool", selector=None, select=0, **prompt):
    torch.manual_seed(0)
    language, tokenizer = tiny_lm.language_model(), tiny_lm.tokenizer()
    hidden = language.config.hidden_size
    made = VideoLM(
        language,
        tokenizer,
        Projector(tiny_lm.DIM, hidden),
        registry.build("compressor", {"name": compressor}, dim=tiny_lm.DIM),
        registry.build("selector", {"name": selector}, dim=hidden) if selector else None,
        PromptConfig(select=select, **prompt),
    )
    return made.eval()


def beside(base, selector, select):
    """The same model with a selector."""
    chosen = registry.build("selector", {"name": selector}, dim=base.plain.config.hidden_size)
    parts = base.language_model, base.tokenizer, base.projector, base.compressor, chosen
    return VideoLM(*parts, replace(base.prompt, select=select)).eval()


def own(**models):
    base = model()
    rows = {"reference": base, "uniform": beside(base, "uniform", 2), **models}
    return Fitted(MeanColours(), rows, {name: {"row": name} for name in rows}, FPS)
