"""Running steps in the order of their needs: here, in worker processes, or on Ray; the same function."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from vxl_lightning.ablation.cells import Step
from vxl_lightning.ablation.work import Context, perform
from vxl_lightning.errors import UserError
from vxl_lightning.parallel import limit_threads, processes


class Watcher(Protocol):
    """Whoever wants to know how far things are."""

    def started(self, step: Step) -> None:
        """A step begins."""

    def progress(self, step: Step, fraction: float) -> None:
        """How much of a step is done."""

    def finished(self, step: Step, worked: bool) -> None:
        """A step is done; not ``worked`` when it had been done before."""


class Silent:
    """A watcher that keeps it to itself."""

    def started(self, step: Step) -> None: ...

    def progress(self, step: Step, fraction: float) -> None: ...

    def finished(self, step: Step, worked: bool) -> None: ...


def run_step(step: Step, context: Context) -> bool:
    """One step, if it has not been done; True when it was done now."""
    return context.store.run(step, lambda s, directory: perform(s, directory, context))


def _run_elsewhere(step: Step, context: Context) -> bool:
    """One step in another process, which tells its progress by a file."""
    path = _progress_file(context, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return run_step(step, replace(context, progress=lambda fraction: _tell(path, fraction)))
    finally:
        path.unlink(missing_ok=True)


def _progress_file(context: Context, step: Step) -> Path:
    final = context.store.path(step)
    return final.with_name(final.name + ".progress")


def _tell(path: Path, fraction: float) -> None:
    path.write_text(f"{fraction:.4f}")


def _told(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # not there yet, or just being written
        return None


def serially(steps: Sequence[Step], context: Context, watcher: Watcher) -> None:
    """One step after the other, in this process."""
    for step in steps:
        watcher.started(step)
        worked = run_step(step, replace(context, progress=partial(watcher.progress, step)))
        watcher.finished(step, worked)


def in_parallel(
    steps: Sequence[Step], context: Context, watcher: Watcher, engine: str, workers: int, threads: int
) -> None:
    """As many steps at a time as there are workers, those with the longest chain still behind them first.

    Raises:
        Exception: what a step raised, once the others that run have ended.
    """
    store = context.store
    waiting = {s.key: s for s in steps if not store.done(s)}
    for step in steps:
        if step.key not in waiting:
            watcher.finished(step, False)
    running: dict[Future[bool], Step] = {}
    behind = _behind(steps)
    with _pool(engine, workers, threads) as submit:
        while waiting or running:
            ready = [s for s in waiting.values() if all(store.done(n) for n in s.needs.values())]
            # Else in the plan's order, which has the uncompressed row first: its answers take longest.
            ready.sort(key=lambda s: -max(behind[s.key], 1))
            for step in ready[: workers - len(running)]:
                watcher.started(step)
                running[submit(step, context)] = waiting.pop(step.key)
            done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            for step in running.values():
                if (fraction := _told(_progress_file(context, step))) is not None:
                    watcher.progress(step, fraction)
            for future in done:
                watcher.finished(running.pop(future), future.result())


def _behind(steps: Sequence[Step]) -> dict[str, int]:
    """How many steps come after each, one needing the other; ``steps`` has what is needed first."""
    behind = {s.key: 0 for s in steps}
    for step in reversed(steps):
        for needed in step.needs.values():
            behind[needed.key] = max(behind.get(needed.key, 0), behind[step.key] + 1)
    return behind


Submit = Callable[[Step, Context], "Future[bool]"]


@contextmanager
def _pool(engine: str, workers: int, threads: int) -> Iterator[Submit]:
    if engine == "ray":
        with _ray(workers, threads) as submit:
            yield submit
        return
    with processes(workers, threads) as pool:
        yield lambda step, context: pool.submit(_run_elsewhere, step, context)


@contextmanager
def _ray(workers: int, threads: int) -> Iterator[Submit]:
    try:
        import ray
    except ImportError:
        raise UserError("engine=ray: Ray is not installed; run: pip install 'vxl-lightning[ray]'") from None
    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)

    def remote(step: Step, context: Context) -> bool:
        limit_threads(threads)
        return _run_elsewhere(step, context)

    task: Any = ray.remote(num_cpus=1, max_retries=0)(remote)
    try:
        yield lambda step, context: task.remote(step, context).future()
    finally:
        if started:
            ray.shutdown()
