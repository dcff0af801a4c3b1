"""What each kind of step does. A step reads its inputs and the results it needs, and writes one directory."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch

from vxl_lightning import registry
from vxl_lightning.ablation.cells import Step, Store
from vxl_lightning.ablation.config import Stage
from vxl_lightning.ablation.plan import Places
from vxl_lightning.ablation.tables import write_predictions
from vxl_lightning.data.batch import ClipBatch
from vxl_lightning.data.chat import exchanges
from vxl_lightning.data.datamodule import VideoDataModule
from vxl_lightning.data.loader import derived_seed
from vxl_lightning.data.schema import Sample
from vxl_lightning.errors import UserError
from vxl_lightning.models.build import VideoLMConfig, build_video_lm, fresh_cache
from vxl_lightning.models.prefix import Layout
from vxl_lightning.models.pretrained import load_compressor, load_pretrained, save_pretrained
from vxl_lightning.models.read_out import options, read_outs
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.modules.tuning import InstructionTuning, auto_precision, settings_from_plain

MODEL = "model"
"""Folder, in a step's directory, that `load_pretrained` reads."""

PREDICTIONS = "predictions.parquet"
GAIN = "gain.json"

Progress = Callable[[float], None]
"""Told the fraction done."""


def _ignore(fraction: float) -> None:
    """The progress that nobody asked for; a function with a name, because workers are sent it."""


@dataclass(frozen=True)
class Context:
    """What the work needs besides the step: finished results, where the data lies, whom to tell."""

    store: Store
    places: Places
    progress: Progress = _ignore

    def data(self, digest: str) -> str:
        return self.places.data[digest]

    def result(self, step: Step, role: str) -> Path:
        return self.store.path(step.needs[role])


def perform(step: Step, directory: Path, context: Context) -> None:
    """Do the work of any step."""
    from vxl_lightning.ablation.measuring import measure

    kinds = {"warmup": warmup, "pretrain": pretrain, "tune": tune, "evaluate": evaluate, "measure": measure}
    with _quiet():
        kinds[step.kind](step, directory, context)


def warmup(step: Step, directory: Path, context: Context) -> None:
    """Train adapters and projector once, around a compressor that is then thrown away."""
    inputs = step.inputs
    L.seed_everything(inputs["seed"], verbose=False)
    data = VideoDataModule(train=context.data(inputs["data"]))
    encoding = data.reader("train").manifest.encoding
    assert encoding is not None
    config = VideoLMConfig.from_plain(
        {
            "dim": encoding.dim,
            "language_model": context.places.language_model[inputs["language_model"]],
            "compressor": _spec(inputs["compressor"]),
            "prompt": inputs["prompt"],
            "adapter": inputs["adapter"],
        }
    )
    model = build_video_lm(config)
    _tune(model, step, context)
    save_pretrained(directory / MODEL, model, config, encoder=encoding.encoder, fps=encoding.fps)


def pretrain(step: Step, directory: Path, context: Context) -> None:
    """Pretrain a compressor by reconstruction and measure it on held-out video."""
    from vxl_lightning.modules.pretraining import ReconstructivePretraining, from_plain

    inputs, settings = step.inputs, dict(step.inputs["settings"])
    L.seed_everything(inputs["seed"], verbose=False)
    data = VideoDataModule(
        train=context.data(inputs["data"]),
        val=context.data(inputs["held_out"]),
        batch_size=settings.pop("batch_size"),
        seed=inputs["seed"],
    )
    encoding = data.reader("train").manifest.encoding
    assert encoding is not None
    spec = _spec(inputs["compressor"])
    config = from_plain(
        settings
        | {
            "dim": encoding.dim,
            "compressor": spec,
            "masker": _spec(inputs["masker"]),
            "objective": inputs["objective"],
            "seed": inputs["seed"],
        }
    )
    module = ReconstructivePretraining(config)
    trainer = _trainer(config.optim.steps, context.progress)
    trainer.fit(module, datamodule=data)
    (metrics,) = trainer.validate(module, datamodule=data, verbose=False)
    gains = {"gain": metrics["val/gain"], "gain_previous": 1 - metrics["val/error_over_previous"]}
    (directory / GAIN).write_text(json.dumps(gains))
    save_pretrained(directory / MODEL, module.model.compressor, spec, encoder=encoding.encoder, fps=encoding.fps)


def tune(step: Step, directory: Path, context: Context) -> None:
    """Tune a variant from the shared warm-up, its compressor fresh or pretrained."""
    inputs = step.inputs
    L.seed_everything(inputs["seed"], verbose=False)
    spec = _spec(inputs["compressor"])
    loaded = load_pretrained(context.result(step, "warmup") / MODEL, compressor=spec)
    model, config = cast(VideoLM, loaded.model), VideoLMConfig.from_plain(loaded.config)
    if inputs["selector"]:
        config = _add_selector(model, config, _spec(inputs["selector"]), inputs["select"])
    if inputs["cache"]:
        config = replace(config, cache=_spec(inputs["cache"]))
        model.cache = fresh_cache(model.plain, config.cache)
    if "compressor" in step.needs:
        load_compressor(context.result(step, "compressor") / MODEL, model.compressor)
    _tune(model, step, context)
    save_pretrained(directory / MODEL, model, config, encoder=loaded.encoder, fps=loaded.fps)


def evaluate(step: Step, directory: Path, context: Context) -> None:
    """Answer every question of the test set; the choice of highest likelihood counts, the first among equals."""
    model = cast(VideoLM, load_pretrained(context.result(step, "model") / MODEL).model).to(device())
    data = VideoDataModule(val=context.data(step.inputs["data"]), batch_size=step.inputs["batch_size"])
    loader = data.val_dataloader()
    reader = data.reader("val")
    named = options([reader.sample(i) for i in range(len(reader))])
    answers: list[dict[str, Any]] = []
    for done, batch in enumerate(loader, 1):
        asked = [questions(s) for s in batch.samples]
        texts, choices = ([[q[name] for q in a] for a in asked] for name in ("question", "choices"))
        scores = model.answers(batch.grid.to(device()), texts, choices)
        for key, of_video, found in zip(batch.keys, asked, scores, strict=True):
            for i, (question, score) in enumerate(zip(of_video, found, strict=True)):
                said = question["choices"][int(score.argmax())]
                row = {"video": key, "question_id": f"{key}#{i}", **question, "prediction": said}
                answers.append(row | {"correct": said == question["answer"]})
        if all(named.values()):
            answers += _read(model, batch, named)
        context.progress(done / len(loader))
    # Which row these are the answers of is the plan's to say.
    unnamed: dict[str, Any] = {"variant": "", "retention": 0.0, "seed": 0}
    write_predictions(directory / PREDICTIONS, [unnamed | a for a in answers])


def _read(model: VideoLM, batch: ClipBatch, named: dict[str, list[str]]) -> list[dict[str, Any]]:
    """What the tokens of a batch name by themselves."""
    with torch.no_grad():
        found = read_outs(model, model.project(batch.grid.to(device())), batch.samples, named)
    return [
        {"video": key, "question_id": f"{key}#read{i}", **row, "correct": row["prediction"] == row["answer"]}
        for key, rows in zip(batch.keys, found, strict=True)
        for i, row in enumerate(rows)
    ]


def questions(sample: Sample) -> list[dict[str, Any]]:
    """The questions of a test sample with their tasks and choices.

    Raises:
        UserError: a question without task or choices, or an answer that is not among them.
    """
    pairs = exchanges(sample)
    meta = {name: sample.meta.get(name) for name in ("task", "choices")}
    for name, values in meta.items():
        if not isinstance(values, list) or len(values) != len(pairs):
            raise UserError(
                f"test sample {sample.id!r}: {name!r} must be a list, one entry for each of {len(pairs)} questions"
            )
    found = []
    for pair, task, choices in zip(pairs, meta["task"] or [], meta["choices"] or [], strict=True):
        if pair.answer not in choices:
            raise UserError(f"test sample {sample.id!r}: answer {pair.answer!r} is not among its choices {choices}")
        found.append({"task": task, "question": pair.question, "choices": list(choices), "answer": pair.answer})
    return found


def device() -> torch.device:
    """Where models run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _tune(model: VideoLM, step: Step, context: Context) -> None:
    """The stages of a step, one after the other, in place."""
    seed = step.inputs["seed"]
    stages = [Stage(**settings_from_plain(s)) for s in step.inputs["stages"].values()]
    stages = [s for s in stages if s.batch_size > 0]
    for number, stage in enumerate(stages):
        order = derived_seed(step.kind, stage.objective, seed)
        data = VideoDataModule(train=context.data(step.inputs["data"]), batch_size=stage.batch_size, seed=order)
        module = InstructionTuning(stage, model)
        if not any(p.requires_grad for p in module.parameters()):
            continue
        progress = _share(context.progress, number, len(stages))
        _trainer(stage.optim.steps, progress).fit(module, datamodule=data)
    model.eval().cpu()


def _add_selector(model: VideoLM, config: VideoLMConfig, spec: dict[str, Any], select: int) -> VideoLMConfig:
    """Put a fresh selector in front of the language model; the configuration that says so."""
    config = replace(config, selector=spec, prompt=replace(config.prompt, select=select))
    model.selector = registry.build("selector", spec, dim=model.projector.hidden)
    model.prompt, model.layout = config.prompt, Layout(model.tokenizer, config.prompt)
    return config


def _share(progress: Progress, number: int, of: int) -> Progress:
    return lambda fraction: progress((number + fraction) / of)


class _Tell(L.Callback):
    def __init__(self, steps: int, progress: Progress) -> None:
        self.steps = steps
        self.progress = progress

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.progress(trainer.global_step / self.steps)


@contextmanager
def _quiet() -> Iterator[None]:
    """What Lightning and transformers say of every one of many short runs would bury the ablation's own progress."""
    from transformers.utils import logging as transformers_logging

    level = logging.getLogger("lightning.pytorch").level
    bars = transformers_logging.is_progress_bar_enabled()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("lightning.pytorch").setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _trainer(steps: int, progress: Progress) -> Any:
    return L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="auto",
        devices=1,
        precision=auto_precision(),
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=steps + 1,
        callbacks=[_Tell(steps, progress)],
    )


def _spec(described: dict[str, Any]) -> dict[str, Any]:
    """The specification of a plugin that `identity.plugin` described."""
    return {"name": described["name"], **described["parameters"]}
