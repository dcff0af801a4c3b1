"""A tiny corpus of real files: six videos, twenty records and a few that are wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vxl_lightning.curation.recipe import Recipe, Source
from vxl_lightning.data.decoding import write_video


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]


def record(name: str, video: str, question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "video": video, "conversations": conversation(question, answer), **more}


def moving(seed: int, frames: int = 12, size: int = 64) -> torch.Tensor:
    """A picture that glides over the frame: ``[T, 3, size, size]`` uint8, another one for every seed."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, 8, 8, generator=generator) * 255
    large = torch.nn.functional.interpolate(small, (2 * size, 2 * size), mode="bicubic").clamp(0, 255)
    step = size // frames
    return torch.cat(
        [large[:, :, i * step : i * step + size, i * step : i * step + size] for i in range(frames)]
    ).byte()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``media/`` with v0 to v5, a copy of v0, a still one and a truncated one; ``a.json`` and ``b.jsonl``."""
    root = tmp_path_factory.mktemp("corpus")
    media = root / "media"
    media.mkdir()
    records = []
    for i in range(6):
        write_video(media / f"v{i}.mp4", moving(i), 4)
        records += [
            record(f"s{i}-{q}", f"v{i}.mp4", f"What is number {q} of {i}?", f"answer {i * q}") for q in range(3)
        ]
    shutil.copy(media / "v0.mp4", media / "copy.mp4")
    write_video(media / "still.mp4", moving(9)[:1].repeat(12, 1, 1, 1), 4)
    (media / "short.mp4").write_bytes((media / "v1.mp4").read_bytes()[:-900])
    first = records[0]
    records += [
        {**first, "id": "copied", "video": "copy.mp4"},
        record("other question", "copy.mp4", "What else is there?", "nothing"),
        record("still", "still.mp4", "What moves?", "nothing at all"),
        record("short", "short.mp4", "What is cut?", "the end"),
        record("missing", "none.mp4", "Where is it?", "nowhere"),
        record("outside", "../secret.mp4", "What is outside?", "secrets"),
    ]
    (root / "a.json").write_text(json.dumps(records))
    lines = [json.dumps(record("line", "v2.mp4", "What is on the line?", "a bird")), "{not json", '"a string"']
    (root / "b.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def recipe(corpus: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe over the corpus, written to ``tmp_path/out``; keyword arguments change it."""

    def make(**changes: Any) -> Recipe:
        settings: dict[str, Any] = {
            "datasets": [Source(json_path="a.json"), Source(json_path="b.jsonl")],
            "annotation_root": str(corpus),
            "media_root": str(corpus / "media"),
            "out": str(tmp_path / "out"),
            "workers": 1,
        }
        return Recipe(**settings | changes)

    return make
