"""From ``model=...`` and the rows of an evaluation to those who answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from vxl_lightning import registry
from vxl_lightning.ablation import identity
from vxl_lightning.config import to_plain
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.answerer import Answerer
from vxl_lightning.evaluation.config import NONE, REFERENCE, EvaluatedVariant, Precision
from vxl_lightning.models.build import fresh_cache
from vxl_lightning.models.language import language_model_folder

if TYPE_CHECKING:
    from vxl_lightning.encoders.base import Encoder
    from vxl_lightning.models.video_lm import VideoLM

KINDS = ("compressor", "selector", "cache")
"""What a row may put into a model."""

HUB = "hf:"
"""Beginning of a model's name that is a folder of Hugging Face's layout."""


def answerers(
    model: str,
    rows: Mapping[str, EvaluatedVariant],
    max_new_tokens: int,
    device: str | None = None,
    precision: Precision = "auto",
) -> dict[str, Answerer]:
    """One for each row; what they share, weights and encoder, is there once.

    Args:
        model: ``hf:FOLDER``, or the folder of a `VideoLM`.
        rows: what is put into it.
        max_new_tokens: longest reply.
        device: where it runs; None is the GPU where there is one.
        precision: of weights and features; see `EvaluationConfig`.

    Raises:
        UserError: no such model, an unknown plugin, or a row that this model cannot be.
    """
    if model.startswith(HUB):
        from vxl_lightning.evaluation.hub import hub_answerers

        return hub_answerers(Path(model.removeprefix(HUB)), rows, max_new_tokens, _place(device), precision)
    return _own(Path(model), rows, max_new_tokens, device, precision)


def answerer_from(
    model: str,
    *,
    select: int = 0,
    max_new_tokens: int = 32,
    device: str | None = None,
    precision: Precision = "auto",
    **settings: Any,
) -> Answerer:
    """One model from ``key=value`` settings, as other harnesses give them.

    Args:
        model: as for `answerers`.
        select: groups or tokens that the selector keeps.
        max_new_tokens: longest reply.
        device: as for `answerers`.
        precision: as for `answerers`.
        **settings: ``compressor``, ``selector`` and ``cache`` name plugins, ``compressor.KEY`` and so on are their
            parameters; a plain ``KEY`` such as ``retention`` is one of the compressor's, or of the cache where there is
            no compressor.

    Raises:
        UserError: see `answerers`; a parameter of a plugin that is not named.
    """
    parts: dict[str, Any] = {kind: {"name": settings.pop(kind)} for kind in KINDS if kind in settings}
    default = "compressor" if "compressor" in parts else "cache"
    for key, value in settings.items():
        kind, dot, name = key.partition(".")
        kind, name = (kind, name) if dot else (default, key)
        if kind not in parts:
            raise UserError(f"{key}={value}: no {kind} is named that it could be a parameter of; add {kind}=NAME")
        parts[kind][name] = value
    if precision not in get_args(Precision):
        raise UserError(f"precision={precision!r} is not one of {', '.join(get_args(Precision))}")
    row = EvaluatedVariant(**parts, select=select)
    return answerers(model, {REFERENCE: row}, max_new_tokens, device, precision)[REFERENCE]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A saved `VideoLM` as the rows of an evaluation: they share its language model, projector and encoder.

    Attributes:
        encoder: of frames.
        models: by row.
        depends: by row, plain values that its answers depend on, beside versions and code.
        fps: frames a second of the videos it was trained on, or None where that was not recorded.
    """

    encoder: "Encoder"
    models: dict[str, "VideoLM"]
    depends: dict[str, dict[str, Any]]
    fps: float | None


def _place(device: str | None) -> torch.device:
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def fitted(
    folder: Path, rows: Mapping[str, EvaluatedVariant], device: str | None = None, precision: Precision = "auto"
) -> Fitted:
    """Of a folder that ``vxl train`` or an ablation wrote.

    Args:
        folder: what `save_pretrained` wrote.
        rows: by name.
        device: as for `answerers`.
        precision: likewise.

    Raises:
        UserError: no such model, an unknown plugin, or a row that this model cannot be.
    """
    place, dtype = _place(device), torch.float32 if precision == "auto" else getattr(torch, precision)
    saved = {
        str(path): _saved(path) for path in dict.fromkeys([folder, *(Path(r.model) for r in rows.values() if r.model)])
    }
    base = saved[str(folder)]
    for path, other in saved.items():
        if other.encoder.fingerprint() != base.encoder.fingerprint() or other.fps != base.fps:
            raise UserError(
                f"model={path}: its frames are encoded or sampled otherwise than those of {folder}, and rows look at "
                "the same ones; evaluate it by itself"
            )
    models: dict[str, VideoLM] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        of = saved[str(Path(row.model))] if row.model else base
        models[name] = _rounded(_fitted(of.model, name, row), dtype).to(place)
        parts = {kind: identity.plugin(kind, spec) for kind, spec in _parts(row).items() if spec.get("name") != NONE}
        given = {"row": to_plain(replace(row, model="")), "parts": parts, "precision": str(dtype)}
        found[name] = of.depends | given
    return Fitted(base.encoder.to(place, dtype), models, found, base.fps)


@dataclass(frozen=True, eq=False)
class _Saved:
    """A `VideoLM` from its folder, its encoder, and what its answers depend on."""

    model: "VideoLM"
    encoder: "Encoder"
    fps: float | None
    depends: dict[str, Any]


def _saved(folder: Path) -> _Saved:
    from vxl_lightning.models.pretrained import LANGUAGE_MODEL, load_pretrained
    from vxl_lightning.models.video_lm import VideoLM

    loaded = load_pretrained(folder)
    if not isinstance(loaded.model, VideoLM):
        raise UserError(
            f"model={folder}: holds a compressor alone, which answers nothing; give a tuned VideoLM's folder"
        )
    if loaded.encoder is None:
        raise UserError(f"model={folder}: does not record its encoder; write it with save_pretrained(..., encoder=...)")
    encoder: Encoder = registry.build("encoder", loaded.encoder).eval()
    spec = loaded.config["language_model"]
    beside = folder / LANGUAGE_MODEL if spec == LANGUAGE_MODEL else language_model_folder(spec)
    depends = {
        "weights": identity.language_model(folder),
        "language_model": identity.language_model(beside),
        "config": loaded.config,
        "encoder": encoder.fingerprint(),
        # Whoever edits a part of the model and asks again sees what the edited part answers.
        "encoder_source": identity.plugin("encoder", loaded.encoder)["source"],
        "plugins": {kind: identity.plugin(kind, spec) for kind in KINDS if (spec := loaded.config.get(kind))},
    }
    return _Saved(loaded.model, encoder, loaded.fps, depends)


def _rounded(model: "VideoLM", dtype: torch.dtype) -> "VideoLM":
    """The model with its weights in a number format.

    Buffers keep theirs: among them are the frequencies of rotary positions, of which half precision would leave nothing
    at places in the hundred thousands.
    """
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


def _own(
    folder: Path, rows: Mapping[str, EvaluatedVariant], max_new_tokens: int, device: str | None, precision: Precision
) -> dict[str, Answerer]:
    from vxl_lightning.evaluation.embedded import Eyes, VideoLMAnswerer

    own = fitted(folder, rows, device, precision)
    eyes = Eyes(own.encoder)
    return {n: VideoLMAnswerer(model, eyes, own.depends[n], max_new_tokens) for n, model in own.models.items()}


def _fitted(base: "VideoLM", name: str, row: EvaluatedVariant) -> "VideoLM":
    """The model with a row's parts in the place of its own; what is trained and not replaced is shared."""
    if not _parts(row):
        return base
    compressor, selector, cache, prompt = base.compressor, base.selector, base.cache, base.prompt
    hidden = base.plain.config.hidden_size
    if row.compressor:
        compressor = registry.build("compressor", row.compressor, dim=base.compressor.dim).eval()
        if compressor.trainable or compressor.out_dim != base.compressor.out_dim:
            raise UserError(
                f"variants.{name}: compressor={row.compressor['name']} has to be trained with the model; "
                "compare trained compressors with 'vxl ablate' and evaluate the models that it writes"
            )
    if row.selector:
        off = row.selector["name"] == NONE
        selector = None if off else registry.build("selector", row.selector, dim=hidden).eval()
        if selector is not None and selector.trainable:
            if base.selector is None or type(selector) is not type(base.selector):
                raise UserError(
                    f"variants.{name}: selector={row.selector['name']} has to be trained, and this model has none"
                )
            _same(name, row.selector, base.selector)
            selector = base.selector
        prompt = replace(prompt, select=0 if off else row.select, select_share=0.0)
    if row.cache:
        cache = None if row.cache["name"] == NONE else fresh_cache(base.plain, row.cache).eval()
        if cache is not None and cache.trainable:
            raise UserError(f"variants.{name}: cache={row.cache['name']} has to be trained; tune a model with it")
    return type(base)(
        base.language_model, base.tokenizer, base.projector, compressor, selector, prompt, base.whole, cache
    ).eval()


def _same(name: str, spec: Mapping[str, Any], trained: Any) -> None:
    """A selector with weights is the model's own, with the parameters that it was trained with.

    Raises:
        UserError: other ones are given.
    """
    for key, value in spec.items():
        if key != "name" and getattr(trained.config, key, value) != value:
            raise UserError(
                f"variants.{name}: selector.{key}={value!r}, but the model's {spec['name']} was trained with "
                f"{key}={getattr(trained.config, key)!r}; leave it out, or tune a model with it"
            )


def provenances(rows: Mapping[str, EvaluatedVariant]) -> list[dict[str, str]]:
    """Where the plugins of rows come from, each once, for a manifest."""
    named = [(kind, str(spec["name"])) for row in rows.values() for kind, spec in _parts(row).items()]
    without = {("selector", NONE), ("cache", NONE)}
    return [registry.provenance(kind, name) for kind, name in dict.fromkeys(named) if (kind, name) not in without]


def _parts(row: EvaluatedVariant) -> dict[str, dict[str, Any]]:
    """What a row replaces, by kind."""
    return {kind: spec for kind in KINDS if (spec := getattr(row, kind))}
