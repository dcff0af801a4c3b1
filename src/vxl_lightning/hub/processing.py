"""Videos and questions as a wrapped model is given them, from the files of its folder, without torchvision."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.errors import UserError
from vxl_lightning.hub.family import family_of_kind
from vxl_lightning.hub.preparing import Preparation, Prepared
from vxl_lightning.hub.settings import read_settings

WORDS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Files of which a tokenizer has at least one."""


class Processing:
    """Makes a model's inputs: every frame that is given, none left out.

    Args:
        tokenizer: the model's own.
        preparation: of its family, with the settings of its folder.
    """

    def __init__(self, tokenizer: Any, preparation: Preparation) -> None:
        self.tokenizer, self.preparation = tokenizer, preparation

    def __call__(
        self, videos: Sequence[Tensor], times: Sequence[Tensor], questions: Sequence[str]
    ) -> dict[str, Tensor]:
        """A batch of questions, each about one video; shorter prompts are padded on the left.

        Args:
            videos: uint8 RGB ``[T, 3, H, W]`` each.
            times: ``[T]`` ascending seconds each.
            questions: the user's turns, each after its video.

        Returns:
            ``input_ids`` and ``attention_mask`` ``[B, L]``, and what the family's models take for videos; on the CPU.

        Raises:
            UserError: a question that cannot be asked, videos that do not go together.
        """
        ready = [self.prepared(frames, at) for frames, at in zip(videos, times, strict=True)]
        tensors = self.preparation.joined([video.tensors for video in ready])
        return self.prompts([video.text for video in ready], questions) | tensors

    def prepared(self, frames: Tensor | Iterable[Tensor], times: Tensor) -> Prepared:
        """One video, whatever is asked about it.

        Args:
            frames: uint8 RGB ``[T, 3, H, W]``, or parts ``[t, 3, H, W]`` of it, which are not held together.
            times: ``[T]`` ascending seconds.

        Raises:
            UserError: frames that are not one video of so many times.
        """
        # Milliseconds: times as they are written stand a hair beside them in single precision.
        return self.preparation(frames, [round(t, 3) for t in times.tolist()])

    def prompts(self, videos: Sequence[str], questions: Sequence[str]) -> dict[str, Tensor]:
        """What a batch of questions is made of beside its videos.

        Args:
            videos: what stands in the prompt for each.
            questions: the user's turns, each after its video.

        Returns:
            ``input_ids`` and ``attention_mask`` ``[B, L]``, and ``mm_token_type_ids`` where the model is told them.

        Raises:
            UserError: a question that cannot be asked.
        """
        rows = [self._ids(question, video) for question, video in zip(questions, videos, strict=True)]
        length = max(map(len, rows))
        lead = [length - len(row) for row in rows]
        fill = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[fill] * pad + row for pad, row in zip(lead, rows, strict=True)])
        mask = torch.arange(length).expand(ids.shape) >= torch.tensor(lead)[:, None]
        given = {"input_ids": ids, "attention_mask": mask.long()}
        if self.preparation.marks_kinds:
            image, video = self.tokenizer.convert_tokens_to_ids([self.preparation.image, self.preparation.video])
            given["mm_token_type_ids"] = (ids == image).long() + 2 * (ids == video).long()
        return given

    def _ids(self, question: str, video: str) -> list[int]:
        """Token ids of a prompt."""
        for mark in (self.preparation.video, self.preparation.image):
            if mark in question:
                raise UserError(f"question={question!r} has {mark}, which stands for what is shown; leave it out")
        prompt = self.preparation.prompt(question)
        if prompt.count(self.preparation.video) != 1:
            raise UserError(
                f"the chat template writes {prompt.count(self.preparation.video)} {self.preparation.video} for one "
                "video; allowed: one; fetch the folder's chat template again"
            )
        text = prompt.replace(self.preparation.video, video)
        begins = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
        ids: list[int] = self.tokenizer(text, add_special_tokens=not begins)["input_ids"]
        return ids


def load_processing(folder: str | Path) -> Processing:
    """Read how a model is shown videos; no weights are read.

    Args:
        folder: of a video model of transformers.

    Raises:
        UserError: a model of another kind, no tokenizer, settings that cannot be used.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(folder)
    if not any((folder / name).is_file() for name in WORDS):
        raise UserError(
            f"model=hf:{folder}: no tokenizer there; allowed: {', '.join(WORDS)} and what belongs to them; fetch the "
            "whole folder"
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # files may be damaged in as many ways as there are libraries to read them
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"model=hf:{folder}: its config.json or tokenizer cannot be read ({line}); fetch it again"
        ) from None
    preparation = family_of_kind(config.model_type).preparation
    if preparation is None:
        raise UserError(f"model_type={config.model_type!r}: nothing here prepares its videos; give its family one")
    return Processing(
        tokenizer, preparation(read_settings(folder, config, tokenizer, preparation.defaults, preparation.kinds))
    )
