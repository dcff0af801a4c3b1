"""Trains a toy model in forked processes and kills them; run by test_resume.py as a script of its own.

Reads runs as JSON lines and answers each with one. Forking after the imports makes a run cheap, and a run that
dies by SIGKILL takes nothing else with it.
"""

import hashlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from vxl_lightning.data.batch import ClipBatch, stands_in
from vxl_lightning.data.datamodule import VideoDataModule


class Toy(pl.LightningModule):
    """Dropout and momentum, so that weights show any difference in batches, order or randomness."""

    def __init__(self, run: dict[str, Any]) -> None:
        super().__init__()
        self.run = run
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        self.die("in")
        with Path(self.run["log"] + f".{self.global_rank}").open("a") as log:
            log.write(json.dumps([self.global_step, [] if stands_in(batch) else batch.keys]) + "\n")
        wanted = torch.tensor([[float(key[-1])] for key in batch.keys]) / 10
        loss = (self.layers(batch.grid.features.mean((1, 2, 3)) / 22) - wanted).pow(2).mean()
        return loss * 0.0 if stands_in(batch) else loss

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        torch.rand(3)  # draws from the generator that training shares

    def on_train_batch_end(self, *_: Any) -> None:
        self.die("after")  # callbacks come first, so the checkpoint of this step may be there

    def die(self, place: str) -> None:
        if self.run.get("die") == [place, self.global_step]:
            if self.run.get("how") == "raise":
                raise RuntimeError("as asked")
            os.kill(os.getpid(), signal.SIGKILL)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Reading this makes Lightning 2.6 forget the state of a stateful loader.
        assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def train(run: dict[str, Any]) -> dict[str, Any]:
    pl.seed_everything(0)
    val, reshard, max_failed = run.get("val", run["data"]), run.get("reshard", False), run.get("max_failed", 0.0)
    data = VideoDataModule(run["data"], val, 3, run["workers"], seed=5, allow_reshard=reshard, max_failed=max_failed)
    checkpoint = ModelCheckpoint(
        run["folder"], "{step}", save_top_k=-1, every_n_train_steps=run["every"], save_on_exception=True
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=run["world"],
        strategy="ddp" if run["world"] > 1 else "auto",
        max_steps=run["steps"],
        val_check_interval=3,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[checkpoint],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Toy(run)
    found = sorted(Path(run["folder"]).glob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns)
    trainer.fit(model, data, ckpt_path=found[-1] if found else None, weights_only=True if found else None)
    # Weights that ran away to NaN would be equal whatever was trained on.
    assert all(bool(p.isfinite().all()) and bool(p.abs().sum() > 0) for p in model.parameters())
    digest = hashlib.sha256()
    for tensor in [*model.state_dict().values(), *(s["momentum_buffer"] for s in model.optimizers().state.values())]:
        digest.update(tensor.numpy().tobytes())
    return {"weights": digest.hexdigest(), "state": data.state_dict()}


def child(run: dict[str, Any], rank: int, port: int) -> None:
    # The master is rank 0's process, as the launcher of a cluster arranges it.
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if run["world"] == 1:
        del os.environ["LOCAL_RANK"]
    logging.getLogger("vxl_lightning.data.failures").addHandler(logging.FileHandler(run["log"] + ".warnings"))
    try:
        answer = train(run)
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    # A file and no pipe: the workers of a killed run would hold a pipe open for seconds.
    Path(f"{run['log']}.answer.{rank}").write_text(json.dumps(answer))


def launch(run: dict[str, Any]) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(run["world"]):
        pid = os.fork()
        if pid == 0:
            signal.alarm(300)  # a rank that waits for one that failed ends the run, not the night
            child(run, rank, port)
            os._exit(0)
        children.append(pid)
    killed = False
    for _ in children:
        pid, status = os.wait()
        if os.WIFSIGNALED(status) and not killed:
            killed = True
            for other in children:
                if other != pid:
                    os.kill(other, signal.SIGKILL)
    answers = [Path(f"{run['log']}.answer.{rank}") for rank in range(run["world"])]
    return {"killed": killed, "ranks": [] if killed else [json.loads(a.read_text()) for a in answers]}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        # Lightning imports more on its first fit; do that once, before the forks.
        warm = {"folder": folder, "log": f"{folder}/log", "workers": 0, "world": 1, "steps": 1, "every": 1}
        train({**warm, "data": sys.argv[1]})
    for line in sys.stdin:
        print("ANSWER" + json.dumps(launch(json.loads(line))), flush=True)
