"""What a folder says about how its model is shown a video."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxl_lightning.errors import UserError

MODES = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Filters by the numbers that Pillow gives them, which the files of a folder use."""

ALWAYS: Mapping[str, Any] = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "resample": 3,
    "default_to_square": True,
}
"""What every family's processor does where a folder does not say otherwise."""


@dataclass(frozen=True)
class Settings:
    """Settings of one folder.

    Attributes:
        folder: which.
        video: how frames are prepared; defaults stand where the folder says nothing.
        text: how prompts are.
        template: its chat template, or None where it has none of its own.
        tokenizer: its own.
        config: the model's.
    """

    folder: Path
    video: Mapping[str, Any]
    text: Mapping[str, Any]
    template: str | None
    tokenizer: Any
    config: Any

    @property
    def mode(self) -> str:
        """The filter that frames are resized with.

        Raises:
            UserError: another one than are known here.
        """
        resample = self.video["resample"]
        if resample not in MODES:
            raise self.wrong("resample", resample, ", ".join(f"{n} ({mode})" for n, mode in MODES.items()))
        return MODES[resample]

    def number(self, name: str, of: Mapping[str, Any] | None = None) -> int:
        """A positive whole number.

        Raises:
            UserError: it is none.
        """
        found = (self.video if of is None else of).get(name)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise self.wrong(name, found, "a positive whole number")
        return found

    def told(self, name: str, otherwise: int) -> int:
        """A positive whole number of prompts, or ``otherwise`` where the folder says nothing.

        Raises:
            UserError: it is none.
        """
        return otherwise if self.text.get(name) is None else self.number(name, self.text)

    def size(self, *allowed: str, name: str = "size") -> dict[str, int]:
        """A size by its edges; one number and a pair of them, as older folders have them, mean edges too.

        Args:
            allowed: names of edges, joined by ``+`` where they come together.
            name: of the setting.

        Raises:
            UserError: other edges, or no numbers.
        """
        found = self.video.get(name)
        if isinstance(found, int):
            square = name != "size" or self.video["default_to_square"]
            found = {"height": found, "width": found} if square else {"shortest_edge": found}
        elif isinstance(found, list) and len(found) == 2:
            found = dict(zip(("height", "width"), found, strict=True))
        edges = {k: v for k, v in found.items() if v is not None} if isinstance(found, dict) else {}
        for keys in (group.split("+") for group in allowed):
            if set(edges) == set(keys):
                return {key: self.number(key, edges) for key in keys}
        raise self.wrong(name, found, " or ".join(f"edges {group.replace('+', ' and ')}" for group in allowed))

    def mark(self, name: str, otherwise: str) -> str:
        """A token by the name that the tokenizer has for it."""
        return str(getattr(self.tokenizer, name, None) or otherwise)

    def wrong(self, name: str, value: Any, allowed: str) -> UserError:
        """The error of one setting."""
        return UserError(
            f"model=hf:{self.folder}: {name}={value!r} in its processor's settings; allowed: {allowed}; correct "
            "processor_config.json, video_preprocessor_config.json or preprocessor_config.json, whichever has it"
        )


def read_settings(
    folder: Path, config: Any, tokenizer: Any, defaults: Mapping[str, Any], kinds: tuple[str, ...]
) -> Settings:
    """Read the files of a folder that say how videos and prompts are prepared.

    Args:
        folder: of the model.
        config: the model's.
        tokenizer: its own.
        defaults: of the family's published processor.
        kinds: names of processors that the family's preparation follows.

    Raises:
        UserError: no file that tells about videos, a damaged one, another processor.
    """
    text = _read(folder / "processor_config.json") or {}
    video = text.get("video_processor")
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        video = _read(folder / name) if video is None else video
    if not isinstance(video, dict):
        raise UserError(
            f"model=hf:{folder}: nothing there tells how videos are prepared; allowed: processor_config.json, "
            "video_preprocessor_config.json or preprocessor_config.json; fetch the whole folder"
        )
    kind = video.get("video_processor_type")
    if kind is not None and kind not in kinds:
        raise UserError(
            f"model=hf:{folder}: video_processor_type={kind!r} prepares videos in a way that is not known here; "
            f"allowed: {', '.join(kinds)}; give load_hub a folder of the published layout"
        )
    said = {name: value for name, value in video.items() if value is not None}
    return Settings(folder, {**ALWAYS, **defaults, **said}, text, _template(folder, text), tokenizer, config)


def _template(folder: Path, text: Mapping[str, Any]) -> str | None:
    legacy = (_read(folder / "chat_template.json") or {}).get("chat_template")
    file = folder / "chat_template.jinja"
    found = text.get("chat_template") or legacy or (file.read_text("utf-8") if file.is_file() else None)
    if isinstance(found, dict):
        found = found.get("default")
    return found


def _read(file: Path) -> dict[str, Any] | None:
    """A file of settings, or None where there is none.

    Raises:
        UserError: it cannot be read as one.
    """
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"model=hf:{file.parent}: {file.name} is damaged; fetch it again")
    return found
