"""Runs the releases of Video-XL and Video-XL-2 in an interpreter of its own, which has the transformers they need.

    VIDEO_XL_PYTHON benchmarks/_video_xl_release.py CHECKOUT

Reads a JSON request a line: ``what`` to run, its numbers, and paths of safetensors ``given`` and ``answer``; writes the
answer and prints an empty line, or prints what went wrong. Imports nothing of this project.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

ARCH = "model.llava_arch"
Given = dict[str, Tensor]


class MetaModel:
    """In place of the release's mixin, which builds the vision tower."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]


@contextmanager
def stubbed(package: str, folder: Path) -> Iterator[None]:
    """Within, single modules of a package can be imported without what its ``__init__`` imports."""
    parts = package.split(".")
    packages = {".".join(parts[:i]): folder.joinpath(*parts[:i]) for i in range(1, len(parts) + 1)}
    packages |= {f"{package}.{name}": folder.joinpath(*parts, name) for name in ("model", "train")}
    before, register = dict(sys.modules), (AutoConfig.register, AutoModelForCausalLM.register)
    for name, path in packages.items():
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(path)]
    arch = sys.modules[f"{package}.{ARCH}"] = ModuleType(f"{package}.{ARCH}")
    vars(arch).update(LlavaMetaModel=MetaModel, LlavaMetaForCausalLM=type("MetaForCausalLM", (), {}))
    sys.modules["accelerate"] = ModuleType("accelerate")
    vars(sys.modules["accelerate"]).update(Accelerator=None)
    # Both releases register one name.
    AutoConfig.register = AutoModelForCausalLM.register = lambda *_args, **_kwargs: None  # type: ignore[assignment]
    try:
        yield
    finally:
        AutoConfig.register, AutoModelForCausalLM.register = register
        for name in set(sys.modules) - set(before):
            if name == "accelerate" or name.split(".")[0] == parts[0]:
                del sys.modules[name]


@cache
def release(folder: Path, package: str) -> SimpleNamespace:
    language = f"{package}.model.language_model"
    with stubbed(package, folder):
        code = import_module(f"{language}.llava_qwen")
        beside = {name: sys.modules.get(f"{language}.{name}") for name in ("modeling_beacon", "modeling_qwen2")}
        return SimpleNamespace(code=code, **beside)


def language_model(code: ModuleType, given: Given, sizes: dict[str, Any], **config: Any) -> Any:
    config = code.LlavaQwenConfig(**sizes, **config, torch_dtype=torch.float32)
    config._attn_implementation = "sdpa"
    model = code.LlavaQwenForCausalLM(config).eval().requires_grad_(False)
    prefix = "weights."
    weights = {name.removeprefix(prefix): x for name, x in given.items() if name.startswith(prefix)}
    model.load_state_dict(weights)
    return model


def layers(keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """``[layers, kv_heads, m, 2 * head_dim]``."""
    return torch.stack([torch.cat([k[0], v[0]], -1) for k, v in zip(keys, values, strict=True)])


def video_xl(checkout: Path, given: Given, sizes: dict[str, Any], ratio: int, window: int) -> Given:
    """A prompt whose visual tokens are summarised."""
    found = release(checkout / "Video-XL/videoxl", "videoxl")
    model = language_model(
        found.code, given, sizes, beacon_window=window, beacon_stride=window, beacon_ratio=[ratio],
        beacon_param=["q", "k", "v"], beacon_accum=True,
    )  # fmt: skip
    model.memory = found.modeling_beacon.Memory(model.config)
    head, visual, question = given["head"], given["visual"], given["question"]
    places = torch.full((len(visual),), sizes["vocab_size"] - 1)
    ids = torch.cat([head, places, question])[None]
    end = len(head) + len(visual)
    out = model(ids, image_features=visual, beacon_skip_first=len(head), beacon_skip_last=end)
    keys, values = [], []
    for layer, *held in zip(
        model.model.layers, model.memory.sink_activations, model.memory.beacon_activations, strict=True
    ):
        key, value = (torch.cat(both, 2) for both in zip(*held, strict=True))
        at = torch.arange(key.shape[2])[None]
        keys.append(layer.self_attn.rotary_emb(key, key, at)[1])
        values.append(value)
    return {"logits": out.logits[0], "kept": layers(keys, values)}


def video_xl_2(
    checkout: Path,
    given: Given,
    sizes: dict[str, Any],
    groups: list[list[int]],
    block: int,
    previous: int,
    chunk: int,
    pool: int,
    units: list[int] | None,
) -> Given:
    """A video read in blocks, and where there are ``units``, recalled in two levels.

    ``groups`` are [begin, end of the time text, end] of each, as places in the prompt.
    """
    way = "w_chunk" if units is None else "w_chunk_bilevel"
    found = release(checkout / "Video-XL-2/eval/lvu" / way, "videoxl2.videoxl2")
    model = language_model(found.code, given, sizes)
    embeds, (begin, end) = given["embeds"][None], (groups[0][0], groups[-1][2])
    asked: dict[str, Any] = {}
    if units is not None:
        config = {"selected_topk": len(units), "selected_chunk_size": chunk, "compression": pool}
        asked = {"selected_unit_indices": units, "selected_config": config}
    out = model(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
        use_cache=True,
        visual_token_start_pos=begin,
        visual_token_end_pos=end,
        time_token_start_indices=[g[0] for g in groups],
        time_token_end_indices=[g[1] for g in groups],
        time_token_indices=[i for g in groups for i in range(g[0], g[1])],
        frames_num=4 * len(groups),
        prev_blocks_num=previous,
        block_size_chosed=block,
        **asked,
    )
    after = embeds.shape[1] - end
    held = [(k, v) for k, v in out.past_key_values]
    length = held[0][0].shape[2] - after
    keys, values = [k[:, :, :length] for k, _ in held], [v[:, :, :length] for _, v in held]
    if units is not None:  # whose cache holds keys that are not rotated yet
        cos, sin = model.model.layers[0].self_attn.rotary_emb(values[0], seq_len=length)
        rotate, at = found.modeling_qwen2.apply_rotary_pos_emb, torch.arange(length)[None]
        keys = [rotate(k, k, cos, sin, at)[1] for k in keys]
    return {"logits": out.logits[0, -after:], "kept": layers(keys, values)}


RUNS: dict[str, Callable[..., Given]] = {"video_xl": video_xl, "video_xl_2": video_xl_2}


def main() -> None:
    checkout, answers = Path(sys.argv[1]), sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        given, answer = load_file(request.pop("given")), request.pop("answer")
        try:
            with redirect_stdout(sys.stderr), torch.no_grad():
                found = RUNS[request.pop("what")](checkout, given, **request)
            save_file({name: x.contiguous() for name, x in found.items()}, answer)
            print(flush=True, file=answers)
        except Exception as e:  # whatever an original does is told, and the next is tried
            print(f"{type(e).__name__}: {e}".replace("\n", " "), flush=True, file=answers)


if __name__ == "__main__":
    main()
