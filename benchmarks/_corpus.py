"""What the benchmarks of recipes share: the planted corpus, and a recipe over it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from vxl_lightning.config import load
from vxl_lightning.curation.recipe import Recipe

ROOT = Path(__file__).parent.parent


def planted(folder: Path, *overrides: str) -> Path:
    """The corpus, made unless it is there."""
    if not (folder / "truth.jsonl").is_file():
        command = [sys.executable, "-m", "vxl_lightning.cli.main", "data", "synth", "corpus", str(folder), *overrides]
        subprocess.run(command, check=True)
    return folder


def arguments(corpus: Path, recipe: str, out: Path, *overrides: str) -> list[str]:
    """What ``vxl data prune`` is given for a recipe of ``data_recipes``, over the corpus with its exclusion lists."""
    lists = {"ids": "ids.txt", "video_hashes": "video_hashes.txt", "qa_hashes": "qa_hashes.txt"}
    lists |= {"annotations": "benchmark.json"}
    excluded = [f"contamination.{key}=[{corpus / 'exclude' / name}]" for key, name in lists.items()]
    return [
        str(ROOT / "data_recipes" / f"{recipe}.yaml"), str(corpus / "mixture.yaml"), f"annotation_root={corpus}",
        f"media_root={corpus / 'media'}", f"out={out}", *excluded, *overrides,
    ]  # fmt: skip


def recipe(*given: str) -> Recipe:
    """The recipe of such arguments."""
    files, overrides = ([x for x in given if ("=" in x) == wanted] for wanted in (False, True))
    return load(Recipe, files, overrides)


def command(given: list[str]) -> list[str]:
    """The command that runs it."""
    return [sys.executable, "-m", "vxl_lightning.cli.main", "data", "prune", *given]


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of `dataset.json`, of every table and of every tar."""
    from vxl_lightning.data.files import sha256_of

    files = [f for pattern in ("*.tar", "*.parquet", "dataset.json") for f in out.glob(pattern)]
    return {file.name: sha256_of(file) for file in sorted(files)}


def rounded(value: Any) -> Any:
    """Numbers short enough to read."""
    return round(value, 4) if isinstance(value, float) else value
