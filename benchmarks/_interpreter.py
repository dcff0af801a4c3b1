"""An original that runs in an interpreter of its own: it is asked in lines of JSON, tensors go through files."""

import json
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _originals import Repository
from safetensors.torch import load_file, save_file
from torch import Tensor


@cache
def _started(python: str, script: Path, checkout: Path) -> "subprocess.Popen[str]":
    """One that answers until this process ends: importing transformers takes longer than a comparison."""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([python, str(script), str(checkout)], text=True, **pipes)


def asked(
    repository: Repository, script: str, checkout: Path, given: Mapping[str, Tensor], **request: Any
) -> dict[str, Tensor]:
    """What a script of this folder answers.

    Args:
        repository: whose ``python`` names the interpreter.
        script: that runs there.
        checkout: its argument.
        given: tensors for it.
        request: numbers and words for it.

    Raises:
        RuntimeError: the script, or the original, failed.
    """
    process = _started(os.environ[repository.python], Path(__file__).parent / script, checkout)
    assert process.stdin is not None and process.stdout is not None
    with TemporaryDirectory() as folder:
        files = {name: str(Path(folder, name)) for name in ("given", "answer")}
        save_file({name: x.clone().contiguous() for name, x in given.items()}, files["given"])
        print(json.dumps({**request, **files}), file=process.stdin, flush=True)
        line = process.stdout.readline()
        if line != "\n":
            raise RuntimeError(line.strip() or f"{script} ended: run it by hand with {repository.python}")
        return load_file(files["answer"])
