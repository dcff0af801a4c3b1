"""Trained parts on disk: a folder with config.json and model.safetensors; one function reads them all."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vxl_lightning import registry
from vxl_lightning.compressors.base import Compressor
from vxl_lightning.config import to_plain
from vxl_lightning.encoders.base import Encoder
from vxl_lightning.errors import UserError
from vxl_lightning.models.build import VideoLMConfig, build_video_lm
from vxl_lightning.models.video_lm import VideoLM

CONFIG, WEIGHTS, LANGUAGE_MODEL = "config.json", "model.safetensors", "language_model"
FORMAT = 1


@dataclass(frozen=True)
class Pretrained:
    """What `load_pretrained` found.

    Attributes:
        model: a `Compressor` or a `VideoLM`, in evaluation mode.
        config: its specification: of a compressor ``{"compressor", "dim"}``, of a VideoLM its `VideoLMConfig`, plain.
        encoder: specification of the encoder whose features it expects, or None where it was not recorded.
        fps: frames a second of the videos it was trained on, or None where that was not recorded.
    """

    model: Compressor | VideoLM
    config: dict[str, Any]
    encoder: dict[str, Any] | None
    fps: float | None = None


def save_pretrained(
    path: str | Path,
    model: Compressor | VideoLM,
    config: VideoLMConfig | Mapping[str, Any],
    *,
    encoder: Mapping[str, Any] | None = None,
    fps: float | None = None,
    merge: bool = False,
) -> None:
    """Write a model so that `load_pretrained` gives it back.

    Args:
        path: folder, made when missing.
        model: a compressor alone, or a VideoLM.
        config: of a VideoLM its `VideoLMConfig`; of a compressor its specification ``{"name": ..., ...}``.
        encoder: specification of the encoder, recorded for whoever asks questions later. Files it names, such as a
            projection, are copied into the folder, which then needs no other.
        fps: frames a second of the videos, recorded likewise.
        merge: put the adapters into the language model and write it in full, so that the folder needs nothing else.
            By default only what was trained is written, and the language model is found again by its name or path.
            The model given is changed by it: its adapters are merged.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    described: dict[str, Any] = {"format": FORMAT, "encoder": _with_files(encoder, folder), "fps": fps}
    if isinstance(model, VideoLM):
        if not isinstance(config, VideoLMConfig):
            raise ValueError("save_pretrained of a VideoLM needs its VideoLMConfig")
        plain = to_plain(config)
        if merge:
            language = model.language_model
            model.language_model = language.merge_and_unload() if hasattr(language, "merge_and_unload") else language
            model.language_model.save_pretrained(folder / LANGUAGE_MODEL)
            model.tokenizer.save_pretrained(folder / LANGUAGE_MODEL)
            plain |= {"language_model": LANGUAGE_MODEL}
            plain["adapter"] |= {"rank": 0, "whole": []}
            model.whole = ()
        described |= {"kind": "video_lm", "config": plain}
        state = trained_state(model)
    else:
        if isinstance(config, VideoLMConfig):
            raise ValueError("save_pretrained of a compressor needs its specification {'name': ..., ...}")
        described |= {"kind": "compressor", "config": {"compressor": dict(config), "dim": model.dim}}
        state = model.state_dict()
    save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(_json(described))


def _json(described: dict[str, Any]) -> str:
    return json.dumps(described, indent=2, sort_keys=True) + "\n"


def describe(config: VideoLMConfig, encoder: Mapping[str, Any], fps: float) -> str:
    """What config.json says of a VideoLM whose language model lies in its folder; ``encoder`` is as it was saved."""
    plain = {"format": FORMAT, "kind": "video_lm", "config": to_plain(config), "encoder": dict(encoder), "fps": fps}
    return _json(plain)


def load_pretrained(
    path: str | Path,
    *,
    compressor: Mapping[str, Any] | None = None,
    language_model: tuple[Any, Any] | None = None,
    cache: Path | None = None,
) -> Pretrained:
    """Read what `save_pretrained` wrote.

    Args:
        path: the folder.
        compressor: build a saved VideoLM around this freshly initialised compressor instead of its own: how variants
            of an ablation start from one shared warm-up.
        language_model: a loaded model and tokenizer to use for the one the folder names.
        cache: see `models.language.load_language_model`.

    Raises:
        UserError: no such folder, a file that is damaged, weights that do not fit the plugins installed.
    """
    folder = Path(path)
    described, weights = _read(folder)
    config, encoder = described["config"], described.get("encoder")
    if encoder:  # files and folders that were saved beside the model
        encoder = {k: str(folder / v) if _is_beside(folder, v) else v for k, v in encoder.items()}
    model: Compressor | VideoLM
    if described["kind"] == "compressor":
        model = registry.build("compressor", config["compressor"], dim=config["dim"])
        _fill(model, weights, set(), folder)
    else:
        if compressor is not None:
            config = config | {"compressor": dict(compressor)}
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith("compressor.")}
        settings = VideoLMConfig.from_plain(config)
        if settings.language_model == LANGUAGE_MODEL:
            settings = VideoLMConfig.from_plain(config | {"language_model": str(folder / LANGUAGE_MODEL)})
        model = build_video_lm(settings, language_model, cache)
        fresh = {n for n in model.state_dict() if n.startswith("compressor.")} if compressor is not None else set()
        _fill(model, weights, fresh, folder)
    return Pretrained(model.eval(), config, encoder, described.get("fps"))


def load_compressor(path: str | Path, into: Compressor) -> None:
    """Copy pretrained weights, of a bare compressor or of a VideoLM's, into a compressor of the same shape.

    Raises:
        UserError: the weights do not fit.
    """
    folder = Path(path)
    described, weights = _read(folder)
    if described["kind"] == "video_lm":
        start = "compressor."
        weights = {name.removeprefix(start): t for name, t in weights.items() if name.startswith(start)}
    _fill(into, weights, set(), folder)


def load_video_lm(path: str | Path, into: VideoLM) -> list[str]:
    """Copy all that was trained of a saved VideoLM into one that tuning goes on with.

    Args:
        path: the folder.
        into: has the same compressor, projector and adapters; its selector or cache may be new.

    Returns:
        The parts that are new, because the folder has none: ``selector``, ``cache``.

    Raises:
        UserError: a folder of a compressor alone, or weights that do not fit.
    """
    folder = Path(path)
    described, weights = _read(folder)
    if described["kind"] != "video_lm":
        raise UserError(f"{folder}: holds a compressor alone; give it as compressor_from")
    there = {name.split(".")[0] for name in weights}
    new = [part for part in ("selector", "cache") if part not in there and getattr(into, part) is not None]
    _fill(into, weights, {name for name in trained_state(into) if name.split(".")[0] in new}, folder)
    return new


def trained_state(model: VideoLM) -> dict[str, Tensor]:
    """All weights but the frozen ones of the language model: compressor, projector, selector, adapter."""
    start = "language_model."
    adapter = model.adapter
    return {n: t for n, t in model.state_dict().items() if not n.startswith(start) or n.removeprefix(start) in adapter}


def _fill(model: nn.Module, weights: dict[str, Tensor], fresh: set[str], folder: Path) -> None:
    expected = set(trained_state(model)) if isinstance(model, VideoLM) else set(model.state_dict())
    wrong = sorted((expected - fresh).symmetric_difference(weights))
    if wrong:
        raise UserError(
            f"{folder}: weights do not fit the model, first at {wrong[0]!r}; "
            "install the version of the plugin it was saved with"
        )
    try:
        model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        line = str(error).splitlines()[-1].strip()
        raise UserError(f"{folder}: weights do not fit the model: {line}") from None


def _with_files(encoder: Mapping[str, Any] | None, folder: Path) -> dict[str, Any] | None:
    """The encoder's specification, the files it names copied into ``folder`` and named relative to it."""
    if not encoder:
        return None
    spec = dict(encoder)
    try:
        cls: type[Encoder] = registry.get("encoder", spec["name"])
    except UserError:  # features may come from an encoder that is not installed here
        return spec
    for key in cls.locations:
        if spec.get(key) and Path(spec[key]).is_file():
            target = folder / f"encoder_{key}{Path(spec[key]).suffix}"
            if target.resolve() != Path(spec[key]).resolve():
                shutil.copyfile(spec[key], target)
            spec[key] = target.name
    return spec


def _is_beside(folder: Path, name: Any) -> bool:
    return isinstance(name, str) and name.startswith("encoder_") and (folder / name).exists()


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a folder says of itself, and its weights."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name}; give a folder that save_pretrained or 'vxl train' wrote")
    try:
        described = json.loads((folder / CONFIG).read_text())
    except ValueError as error:  # not JSON, or not even text
        raise UserError(f"{folder / CONFIG}: not JSON ({error}); the folder is damaged, save the model again") from None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise UserError(f"{folder / CONFIG}: not a model of this version (format {FORMAT}); save it again")
    config, needed = described.get("config"), {"compressor": ("compressor", "dim"), "video_lm": ("dim",)}
    kind = described.get("kind")
    if kind not in needed or not isinstance(config, dict) or any(key not in config for key in needed[kind]):
        raise UserError(f"{folder / CONFIG}: damaged, kind or config is not what save_pretrained writes; save it again")
    try:
        return described, load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS}: damaged ({error}); save the model again") from None
