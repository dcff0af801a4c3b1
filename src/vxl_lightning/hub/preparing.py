"""How a family's published processor shows its models a video, as far as the family says."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.errors import UserError
from vxl_lightning.hub.frames import cropped, normalised, resized
from vxl_lightning.hub.settings import Settings

CLIP: Mapping[str, Any] = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""Normalisation of the pictures that CLIP was trained on."""

HALF: Mapping[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
"""Normalisation to -1 to 1."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One video, ready.

    Attributes:
        text: what stands in the prompt for it, a placeholder for every cell included.
        tensors: what the model is given beside the prompt.
    """

    text: str
    tensors: dict[str, Tensor]


class Preparation(ABC):
    """What is particular to a family; prompts, padding and devices are `vxl_lightning.hub.processing`'s.

    Args:
        settings: of one folder, checked here, so that a folder that cannot be used is refused before weights are read.

    Traits:
        kinds: processors of transformers that it does the same as.
        defaults: their settings where a folder says nothing.
        marks: tokens that stand for a video and for a picture in a prompt, where the tokenizer does not name them.
        marks_kinds: the model is told which tokens are of pictures and videos.

    Attributes:
        mode: the filter that frames are resized with.
        video: the token that stands for a video in a prompt.
        image: the token that stands for a picture.
    """

    kinds: ClassVar[tuple[str, ...]]
    defaults: ClassVar[Mapping[str, Any]] = {}
    marks: ClassVar[tuple[str, str]] = ("<video>", "<image>")
    marks_kinds: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        self.settings, self.mode = settings, settings.mode
        video, image = self.marks
        self.video, self.image = settings.mark("video_token", video), settings.mark("image_token", image)

    def __call__(self, frames: Tensor | Iterable[Tensor], times: Sequence[float]) -> Prepared:
        """Prepare one video; of frames that come in parts, only a part is ever held at its own size.

        Args:
            frames: uint8 RGB ``[T, 3, H, W]``, or parts ``[t, 3, H, W]`` of it, one after another.
            times: ``T`` seconds.

        Raises:
            UserError: another number of frames than of times, or frames of several sizes.
        """

        def fitted(part: Tensor) -> Tensor:
            # On the CPU, where bytes are mixed as bytes: the same whatever the model runs on.
            return self.fitted(part.cpu(), len(times))

        # Unlike a loop, map lets go of one part before it asks for the next.
        parts = map(fitted, [frames] if isinstance(frames, Tensor) else frames)
        return self.shown(_whole(parts, len(times)), times)

    @abstractmethod
    def fitted(self, frames: Tensor, count: int) -> Tensor:
        """Some frames of a video in the size in which they are shown; each becomes what it would in any company.

        Args:
            frames: uint8 RGB ``[t, 3, H, W]`` on the CPU.
            count: frames of the whole video.

        Returns:
            uint8 ``[t, 3, h, w]``.
        """

    @abstractmethod
    def shown(self, frames: Tensor, times: Sequence[float]) -> Prepared:
        """One video.

        Args:
            frames: uint8 RGB ``[T, 3, h, w]``, all of them as `fitted` gives them.
            times: ``T`` seconds.
        """

    def prompt(self, question: str) -> str:
        """The user's turn, with the video's token before the question.

        Raises:
            UserError: the folder has no chat template, or one that cannot be filled in.
        """
        where = f"model=hf:{self.settings.folder}"
        words = self.settings.tokenizer
        template = self.settings.template or words.chat_template
        if not template:
            raise UserError(f"{where}: no chat template there; allowed: chat_template.jinja; fetch the whole folder")
        content = [{"type": "video"}, {"type": "text", "text": question}]
        turn = [{"role": "user", "content": content}]
        try:
            text = words.apply_chat_template(turn, chat_template=template, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # whatever a template may do
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{where}: its chat template cannot be filled in ({line}); fetch it again") from None
        return str(text)

    def joined(self, parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Videos of a batch, in order: one behind another.

        Raises:
            UserError: they do not go together.
        """
        if len(parts) == 1:  # joining would copy it
            return dict(parts[0])
        names = parts[0].keys()
        shapes = {name: [tuple(part[name].shape[1:]) for part in parts] for name in names}
        if odd := [name for name in names if len(set(shapes[name])) > 1]:
            raise UserError(
                f"videos of a batch come out as {odd[0]} of {shapes[odd[0]]}, which this model takes only if they are "
                "alike; give them the same number of frames and the same size, or ask one by one"
            )
        return {name: torch.cat([part[name] for part in parts]) for name in names}


class WholeFrames(Preparation):
    """Frames that all come out of one size: what vision towers of a fixed size take."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.size = settings.size("height+width", "shortest_edge")
        crops = settings.video.get("do_center_crop")
        self.crop = settings.size("height+width", name="crop_size") if crops else None

    def fitted(self, frames: Tensor, count: int) -> Tensor:
        """uint8 ``[t, 3, h, w]``: resized, to the shorter edge where that is told alone, and cropped."""
        if self.settings.video["do_resize"]:
            height, width = frames.shape[-2:]
            if short := self.size.get("shortest_edge"):
                long = int(short * max(height, width) / min(height, width))
                high, wide = (long, short) if width <= height else (short, long)
            else:
                high, wide = self.size["height"], self.size["width"]
            frames = resized(frames, high, wide, self.mode)
        return frames if self.crop is None else cropped(frames, **self.crop)

    def pixels(self, frames: Tensor) -> Tensor:
        """float32 ``[T, 3, h, w]`` of frames that fit."""
        return normalised(frames, self.settings)


def apart(times: Sequence[float]) -> float:
    """Mean seconds from one frame to the next; one second where there is no next."""
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1.0


def _whole(parts: Iterable[Tensor], count: int) -> Tensor:
    """``[count, 3, h, w]`` of its parts, put where they stay: joining them would hold them twice.

    Raises:
        UserError: they are not as many, or of several sizes.
    """
    whole, filled = torch.empty(0), 0
    for part in parts:
        if not filled:
            whole = part if len(part) == count else part.new_empty(count, *part.shape[1:])
        if part.shape[1:] != whole.shape[1:]:
            sizes = f"{tuple(whole.shape[1:])} and {tuple(part.shape[1:])}"
            raise UserError(f"frames of one video come out as {sizes}; they must be of one size: decode them alike")
        begin, filled = filled, filled + len(part)
        if filled > count:
            break
        if whole is not part:
            whole[begin:filled] = part
    if filled != count:
        raise UserError(f"times must be as many as frames, got {filled} frames for {count} times; give each its second")
    return whole
