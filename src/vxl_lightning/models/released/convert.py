"""Video-XL-Pro's released folder to one that `load_pretrained` reads, and back, tensor for tensor."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vxl_lightning import registry
from vxl_lightning.errors import UserError
from vxl_lightning.models.build import AdapterConfig, VideoLMConfig
from vxl_lightning.models.pretrained import CONFIG, LANGUAGE_MODEL, WEIGHTS, describe
from vxl_lightning.models.projector import Projector
from vxl_lightning.models.released.files import FORMAT, Weights, listed, new_folder, read_json, write_weights
from vxl_lightning.models.released.names import OPTIONAL, TOWER, UNUSED, Rule, video_xl_pro
from vxl_lightning.models.released.video_xl_pro import KEEP, released_parts, released_prompt

SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
"""siglip-so400m-patch14-384, which the release's code always takes; a ``vision_config`` in config.json goes first."""
GRID, FPS = 24, 1.0
FIXED = {"mm_projector_type": "mlp2x_gelu", "mm_spatial_pool_mode": "average", "mm_spatial_pool_stride": 2}
"""Settings of the released configuration that this model is built for."""
NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
ENCODER, RELEASED, UNREAD = "encoder_path", "released", "unread.safetensors"
"""Folders for the vision tower, and for what is kept for the way back: small files, and tensors that nothing reads."""
LANGUAGE = ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")


def to_ours(source: Path, target: Path, keep: float = KEEP, pad: str = "last", context: int | None = None) -> int:
    """Read a released folder (config.json, safetensors, tokenizer) and write one that `load_pretrained` reads.

    Args:
        source: the released folder.
        target: a folder that does not exist yet; it appears when it is complete.
        keep: share of the visual tokens that reach the language model.
        pad: how the last group of four frames is completed, last or spread.
        context: most positions the language model is given, instead of what the released configuration says; 8,192
            frames take 270,000 of them. Beyond it `VideoLM.answer` refuses, where the release cuts the prompt short.

    Returns:
        How many tensors there were.

    Raises:
        UserError: a file, a tensor or a setting that is not what the release has; everything wrong is named.
    """
    if not source.is_dir():
        raise UserError(f"{source} is no folder; give the released checkpoint's, with config.json and safetensors")
    config = _released_config(source)
    prompt, parts = released_prompt(keep), released_parts(pad)
    tower = SO400M | config.get("vision_config", {})
    rules = video_xl_pro()
    with Weights(source) as weights:
        expected, read = _expected(config, tower, rules)
        last = f"{TOWER}vision_model.encoder.layers.{tower['num_hidden_layers'] - 1}."
        unread = [n for n in weights if n in UNUSED or n.startswith((*OPTIONAL, f"{TOWER}vision_model.head.", last))]
        _check(source, weights, expected, set(unread), optional=config.get("tie_word_embeddings", False))
        with new_folder(target) as folder:
            settings = VideoLMConfig(
                dim=tower["hidden_size"],
                language_model=LANGUAGE_MODEL,
                prompt=prompt,
                adapter=AdapterConfig(rank=0),
                released=True,
                **parts,
            )
            encoder = {"name": "siglip", "path": ENCODER, "layer": -1, "grid": GRID}
            (folder / CONFIG).write_text(describe(settings, encoder, FPS))
            save_file({r.ours: r.to_ours([weights[n] for n in r.theirs]) for r in rules}, folder / WEIGHTS)
            _write_model(folder / ENCODER, _tower_config(tower), weights, read["tower"], TOWER)
            language = _language_config(config) | ({"max_position_embeddings": context} if context else {})
            _write_model(folder / LANGUAGE_MODEL, language, weights, read["language"])
            for name in TOKENIZER:
                if (source / name).is_file():
                    shutil.copyfile(source / name, folder / LANGUAGE_MODEL / name)
            (folder / RELEASED).mkdir()
            for file in _small_files(source):
                shutil.copyfile(file, folder / RELEASED / file.name)
            save_file({n: weights[n] for n in unread}, folder / RELEASED / UNREAD, metadata=FORMAT)
        return sum(1 for _ in weights)


def to_theirs(source: Path, target: Path) -> int:
    """Write a folder of `to_ours`, its weights trained further or not, in the released layout again.

    Returns:
        How many tensors were written.

    Raises:
        UserError: not such a folder, or its language model is elsewhere or has adapters.
    """
    described = read_json(source / CONFIG)
    config = described.get("config") or {}
    if not config.get("released") or not (source / RELEASED / CONFIG).is_file():
        raise UserError(
            f"{source}: no {RELEASED}/{CONFIG}; only a folder that 'vxl convert' wrote can go back (for a model tuned "
            f"from one: save it with merge=True and copy the folder {RELEASED} into it)"
        )
    if config["language_model"] != LANGUAGE_MODEL or config["adapter"]["rank"] or config["adapter"]["whole"]:
        raise UserError(f"{source}: its language model is not whole in the folder; save it with merge=True first")
    encoder = source / (described.get("encoder") or {}).get("path", ENCODER)
    with (
        Weights(source / WEIGHTS) as ours,
        Weights(encoder) as tower,
        Weights(source / LANGUAGE_MODEL) as language,
        Weights(source / RELEASED / UNREAD) as unread,
    ):
        rules = video_xl_pro()
        if lost := {rule.ours for rule in rules}.symmetric_difference(ours):
            raise UserError(f"{source / WEIGHTS}: missing or unknown: {listed(lost)}; convert the checkpoint again")

        def tensors() -> Iterator[tuple[str, Tensor]]:
            for rule in rules:
                yield from zip(rule.theirs, rule.to_theirs(ours[rule.ours]), strict=True)
            yield from ((TOWER + name, tower[name]) for name in tower)
            yield from ((name, language[name]) for name in language)
            yield from ((name, unread[name]) for name in unread)

        with new_folder(target) as folder:
            write_weights(folder, tensors())
            for file in _small_files(source / RELEASED):
                shutil.copyfile(file, folder / file.name)
        return sum(len(rule.theirs) for rule in rules) + sum(1 for w in (tower, language, unread) for _ in w)


def _released_config(source: Path) -> dict[str, Any]:
    config = read_json(source / CONFIG)
    if lost := [key for key in NEEDED if key not in config]:
        raise UserError(f"{source / CONFIG}: no {listed(lost)}; give the folder of a released Video-XL-Pro checkpoint")
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise UserError(f"{source / CONFIG}: {key}={config[key]!r} is not {value!r}, what Video-XL-Pro has")
    if not any((source / name).is_file() for name in TOKENIZER):
        raise UserError(f"{source}: no tokenizer.json or vocab.json; download the checkpoint's tokenizer beside it")
    return config


def _tower_config(tower: dict[str, Any]) -> dict[str, Any]:
    """The release cuts off the last block and the pooling head."""
    return tower | {
        "model_type": "siglip_vision_model",
        "num_hidden_layers": tower["num_hidden_layers"] - 1,
        "vision_use_head": False,
    }


def _language_config(config: dict[str, Any]) -> dict[str, Any]:
    """What a plain Qwen2 reads of the released configuration; the release sets rope_scaling aside as well."""
    from transformers import Qwen2Config

    known = set(Qwen2Config().to_dict()) - {"_name_or_path", "transformers_version", "rope_parameters"}
    plain = {k: v for k, v in config.items() if k in known | {"rope_theta", "torch_dtype"}}
    return plain | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}


def _expected(
    config: dict[str, Any], tower: dict[str, Any], rules: list[Rule]
) -> tuple[dict[str, tuple[int, ...]], dict[str, list[str]]]:
    """Shapes of all tensors by released names, and the names that the tower and the language model read."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

    parts = released_parts()
    with torch.device("meta"):
        language = Qwen2ForCausalLM(Qwen2Config.from_dict(_language_config(config)))
        vision = SiglipVisionModel(SiglipVisionConfig.from_dict(_tower_config(tower)))
        modules = {
            "compressor": registry.build("compressor", parts["compressor"], dim=tower["hidden_size"]),
            "projector": Projector(tower["hidden_size"], config["hidden_size"]),
            "selector": registry.build("selector", parts["selector"], dim=config["hidden_size"]),
        }
    ours = {f"{part}.{n}": t.shape for part, module in modules.items() for n, t in module.state_dict().items()}
    shapes = {name: rule.shape(ours[rule.ours]) for rule in rules for name in rule.theirs}
    hidden = config["hidden_size"]
    shapes |= {name: (hidden, hidden) if name.endswith("weight") else (hidden,) for name in UNUSED}
    towers = {f"{TOWER}vision_model.{n}": tuple(t.shape) for n, t in vision.state_dict().items()}
    languages = {n: tuple(t.shape) for n, t in language.state_dict().items()}
    return shapes | towers | languages, {"tower": list(towers), "language": list(languages)}


def _check(
    source: Path, weights: Weights, expected: dict[str, tuple[int, ...]], unread: set[str], optional: bool
) -> None:
    """Everything that is wrong with a checkpoint, in one error."""
    found = set(weights)
    missing = set(expected) - found - ({"lm_head.weight"} if optional else set())
    unknown = found - set(expected) - unread
    wrong = [
        f"{name} is {list(weights.shape(name))} and should be {list(expected[name])}"
        for name in found & set(expected)
        if weights.shape(name) != expected[name]
    ]
    problems = [("missing", missing), ("unknown", unknown), ("of another shape", wrong)]
    told = [f"{len(names)} {what}: {listed(names)}" for what, names in problems if names]
    if told:
        raise UserError(f"{source}: its tensors are not those of a released Video-XL-Pro; " + "; ".join(told))


def _write_model(folder: Path, config: dict[str, Any], weights: Weights, names: list[str], prefix: str = "") -> None:
    """A transformers folder with those of the tensors that there are, ``prefix`` taken off their names."""
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    there = set(weights)
    write_weights(folder, ((n.removeprefix(prefix), weights[n]) for n in names if n in there))


def _small_files(folder: Path) -> list[Path]:
    """Everything in a folder but its weights."""
    return sorted(
        f
        for f in folder.iterdir()
        if f.is_file() and not f.name.endswith((".safetensors", ".bin", ".safetensors.index.json"))
    )
