"""A video model of transformers from a local folder, with a compressor, selector or cache compressor by name."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vxl_lightning import registry
from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.errors import UserError
from vxl_lightning.hub.family import families, family_of
from vxl_lightning.hub.processing import load_processing
from vxl_lightning.hub.video_lm import HubVideoLM

log = logging.getLogger(__name__)

SCHEME = "hf:"

Spec = str | Mapping[str, Any]


def load_hub(
    path: str | Path,
    *,
    compressor: Spec | None = None,
    selector: Spec | None = None,
    select: int = 0,
    select_share: float = 0.0,
    cache: Spec | None = None,
    dtype: Any = "auto",
    device: str = "cpu",
) -> HubVideoLM:
    """Read a model and how it is shown videos, and put methods between its vision and its language.

    Nothing is fetched, and no code that lies in the folder is run. Methods with weights of their own begin untrained,
    so choose one that needs no training.

    Args:
        path: a folder, ``hf:`` before it or not.
        compressor: a plugin's name, or ``{"name": ..., **parameters}``.
        selector: likewise.
        select: how many frames (tokens) the selector may keep.
        select_share: the same as a share.
        cache: likewise a plugin.
        dtype: of the weights, by default as they were saved.
        device: where the model runs.

    Raises:
        UserError: no such folder, a model of another kind, files that cannot be read, an unknown plugin.
    """
    from transformers import AutoModelForImageTextToText

    folder = Path(str(path).removeprefix(SCHEME))
    _kind(folder)
    processing = load_processing(folder)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    except (ImportError, OSError, ValueError) as error:
        line = next(line.strip() for line in str(error).splitlines() if line.strip())
        raise UserError(f"model={SCHEME}{folder}: cannot be read ({line}); fetch the whole folder again") from None
    model = model.to(device).eval()
    text_model = family_of(model.base_model).language_model(model.base_model)
    hidden = text_model.config.hidden_size
    made = None
    if cache is not None:
        made = registry.build("cache", cache, shape=LanguageShape.of(text_model))
        made.start_from(text_model)
    reduces = None if compressor is None else registry.build("compressor", compressor, dim=hidden)
    for part in (reduces, made):
        if part is not None and any(p.requires_grad for p in part.parameters()):
            log.warning("%s has weights, which nothing has trained for this model", type(part).__name__)
    return HubVideoLM(
        model,
        processing,
        compressor=reduces,
        selector=None if selector is None else registry.build("selector", selector, dim=hidden),
        select=select,
        select_share=select_share,
        cache=made,
    )


def _kind(folder: Path) -> None:
    """Look before gigabytes are read."""
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(
            f"model={SCHEME}{folder}: no config.json there; give a local folder of a transformers video model, such as "
            "'hf download' makes"
        )
    try:
        kind = json.loads(file.read_text()).get("model_type")
    except (ValueError, AttributeError):
        raise UserError(f"model={SCHEME}{folder}: config.json is damaged; fetch the folder again") from None
    if kind not in families():
        raise UserError(
            f"model={SCHEME}{folder}: model_type={kind!r} cannot be wrapped; allowed: {', '.join(sorted(families()))}"
        )
