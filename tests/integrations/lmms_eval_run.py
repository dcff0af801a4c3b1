"""Runs toy tasks through lmms-eval in a process of its own, because it changes file locks, seeds and logging for good.

python lmms_eval_run.py FOLDER_OF_TASKS OUT.json simple|chat TASK...
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_eval.tasks import TaskManager

from vxl_lightning.data.decoding import stream_frames
from vxl_lightning.evaluation import models
from vxl_lightning.evaluation.answerer import Answerer, Asked, Reply, Shown
from vxl_lightning.integrations.lmms_eval import manifest

LOOKS: list[list[Any]] = []


class Brightness(Answerer):
    """Says yes to bright videos."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    @property
    def identity(self) -> dict[str, Any]:
        return self.settings

    def replies(self, shown: Shown, asked: Sequence[Asked]) -> Iterator[Reply]:
        frames, _ = next(stream_frames(shown.path, shown.times))
        word = "yes" if frames.float().mean() > 128 else "no"
        LOOKS.append([shown.path.name, len(frames), [[a.prompt, list(a.choices), a.max_new_tokens] for a in asked]])
        for one in asked:
            scores = {choice: -0.1 if choice == word else -3.0 for choice in one.choices}
            yield Reply(f"{word}\nbecause", scores, counts={"visual_tokens": 9, "text_tokens": 4})


def main(folder: str, out: str, interface: str, *tasks: str) -> None:
    models.answerer_from = lambda model, **settings: Brightness(model=model, **settings)
    MODEL_REGISTRY_V2.register_manifest(manifest(), overwrite=True)
    results = simple_evaluate(
        "vxl",
        "model=hf:/models/tiny,compressor=dtd,retention=0.25,fps=2,max_frames=3",
        tasks=list(tasks),
        batch_size=1,
        task_manager=TaskManager(include_path=folder, include_defaults=False, model_name="vxl"),
        force_simple=interface == "simple",
        process_docs_parallel=1,
    )
    samples = {name: [[s["filtered_resps"], s["token_counts"]] for s in of] for name, of in results["samples"].items()}
    kept = {"scores": {name: of["acc,none"] for name, of in results["results"].items()}, "samples": samples}
    Path(out).write_text(json.dumps(kept | {"looks": LOOKS, "backend": results["config"]["model_backend"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
