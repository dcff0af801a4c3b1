"""Tensors of a folder of safetensors, one at a time; folders that appear complete or not at all."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vxl_lightning.errors import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 4 * 2**30
FORMAT = {"format": "pt"}


class Weights:
    """The tensors of a transformers folder or of one file, sharded or not, read when they are asked for.

    Args:
        path: the folder, or a file of safetensors.

    Raises:
        UserError: no safetensors, a shard that is missing, a file that is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, Any] = {}
        self._close = ExitStack()
        for file in _files(path):
            try:
                opened: Any = self._close.enter_context(safe_open(file, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise UserError(f"{file}: damaged ({error}); download it again") from None
            self._files |= dict.fromkeys(opened.keys(), opened)

    def __enter__(self) -> "Weights":
        return self

    def __exit__(self, *error: object) -> None:
        self._close.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._files[name].get_slice(name).get_shape())


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    if not (path / INDEX).is_file():
        raise UserError(f"{path}: no {WEIGHTS} and no {INDEX}; give a folder with weights in safetensors")
    names = sorted(set(read_json(path / INDEX).get("weight_map", {}).values()))
    lost = [name for name in names if not (path / name).is_file()]
    if lost:
        raise UserError(f"{path}: {INDEX} names {listed(lost)}, which the folder lacks; download it again")
    return [path / name for name in names]


def write_weights(folder: Path, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES) -> None:
    """Write a transformers folder's weights, at most one shard of them in memory."""
    shards: list[list[str]] = []
    held: dict[str, Tensor] = {}
    total = size = 0

    def flush() -> None:
        nonlocal held, size
        save_file(held, folder / f"part-{len(shards)}", metadata=FORMAT)
        shards.append(list(held))
        held, size = {}, 0

    for name, tensor in tensors:
        if held and size + tensor.nbytes > shard_bytes:
            flush()
        held[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(shards) == 1:
        (folder / "part-0").rename(folder / WEIGHTS)
        return
    files = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for i, file in enumerate(files):
        (folder / f"part-{i}").rename(folder / file)
    where = {name: file for file, names in zip(files, shards, strict=True) for name in names}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` that takes its place when everything is in it, and goes when something fails.

    Raises:
        UserError: ``path`` is there already and not an empty folder, or what it should be in is not.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists already; name a folder that does not, or remove it first")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: {path.parent} is not a folder; make it first")
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.absolute().parent))
    try:
        partial.chmod(0o755)
        yield partial
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def read_json(file: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        UserError: no such file, or not a JSON object.
    """
    try:
        found = json.loads(file.read_text())
    except OSError:
        raise UserError(f"{file.parent}: no {file.name}") from None
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: not a JSON object")
    return found


def listed(names: Iterable[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + more
