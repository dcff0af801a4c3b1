"""Running a stage over the rows of a table: in processes here, or on a Ray cluster; the same function.

A table is cut into parts, and each part's result is a table of its own, published by a rename: what was killed
goes on with the parts that are missing, and the result does not depend on who did which. Costly parts go first, so that
nobody waits for one long video at the end. Workers read their part and write their result themselves; neither
rows nor video bytes pass through the driver.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from vxl_lightning.curation.schema import ROW_GROUP, iterate, write_batches, write_table
from vxl_lightning.errors import UserError
from vxl_lightning.parallel import limit_threads, processes

StageFunction = Callable[[pa.Table], pa.Table]


class Watcher(Protocol):
    """Whoever wants to know how far things are."""

    def stage(self, name: str, total: int, done: int) -> None:
        """A stage of ``total`` items begins, ``done`` of them being done already."""

    def advance(self, name: str, items: int) -> None:
        """Some more items of it are done."""


class Silent:
    """A watcher that keeps it to itself."""

    def stage(self, name: str, total: int, done: int) -> None: ...

    def advance(self, name: str, items: int) -> None: ...


@dataclass(frozen=True)
class Part:
    """Rows ``[begin, end)`` of a table, and what they cost in any unit."""

    number: int
    begin: int
    end: int
    cost: float


def parts_of(costs: Sequence[float], most_rows: int, most_cost: float = float("inf")) -> list[Part]:
    """Cut rows into parts: each of at most ``most_rows``, closed once it has reached ``most_cost``."""
    parts: list[Part] = []
    begin, cost = 0, 0.0
    for row, one in enumerate(costs):
        cost += one
        if row + 1 - begin == most_rows or cost >= most_cost or row + 1 == len(costs):
            parts.append(Part(len(parts), begin, row + 1, cost))
            begin, cost = row + 1, 0.0
    return parts


def run_part(function: StageFunction, table: Path, part: Part, target: Path) -> int:
    """One part, unless it is done; gives its number of rows."""
    if not target.exists():
        write_table(target, function(read_rows(table, part.begin, part.end)))
    return part.end - part.begin


def read_rows(path: Path, begin: int, end: int) -> pa.Table:
    """Rows ``[begin, end)`` of a table of this project: only their row groups are read."""
    with pq.ParquetFile(path) as file:
        groups = list(range(begin // ROW_GROUP, -(-end // ROW_GROUP)))
        return file.read_row_groups(groups).slice(begin - groups[0] * ROW_GROUP, end - begin)


class Runner:
    """Runs stages with an engine; a context manager, whose processes are started once for all stages.

    Args:
        engine: ``local`` or ``ray``.
        workers: processes; on Ray, the cluster decides.
        watcher: told of the progress.
    """

    def __init__(self, engine: str, workers: int, watcher: Watcher) -> None:
        self.engine = engine
        self.workers = workers
        self.watcher = watcher
        self._stack = ExitStack()
        self._submit: Submit | None = None
        self._workers = workers

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *error: object) -> None:
        """End the processes, if any were needed."""
        self._stack.close()

    def map(
        self, name: str, function: StageFunction, table: Path, parts: Sequence[Part], folder: Path, schema: pa.Schema
    ) -> Path:
        """Apply ``function`` to the parts of ``table``; the results, in the parts' order, become ``<folder>.parquet``.

        ``folder``'s name must change with whatever the result depends on.
        """
        result = folder.with_name(folder.name + ".parquet")
        total = sum(p.end - p.begin for p in parts)
        if result.exists():
            self.watcher.stage(name, total, total)
            return result
        folder.mkdir(parents=True, exist_ok=True)
        targets = [folder / f"{part.number:06d}.parquet" for part in parts]
        self.run(name, [(run_part, (function, table, p, t)) for p, t in zip(parts, targets, strict=True)],
                 [p.cost for p in parts], [p.end - p.begin for p in parts], [t.exists() for t in targets])  # fmt: skip
        write_batches(result, schema, (batch for target in targets for batch in iterate(target)))
        return result

    def run(
        self,
        name: str,
        calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
        costs: Sequence[float],
        items: Sequence[int],
        done: Sequence[bool],
    ) -> None:
        """Make the calls that are not done, the costliest first.

        Raises:
            Exception: what a call raised, once those under way have ended.
        """
        self.watcher.stage(name, sum(items), sum(n for n, d in zip(items, done, strict=True) if d))
        order = sorted((i for i, d in enumerate(done) if not d), key=lambda i: (-costs[i], i))
        if not order:
            return
        if self._submit is None:
            self._submit, self._workers = self._stack.enter_context(
                _ray() if self.engine == "ray" else _local(self.workers)
            )
        running: dict[Future[Any], int] = {}
        queue = iter(order)
        while True:
            while len(running) < 2 * self._workers and (i := next(queue, None)) is not None:
                running[self._submit(calls[i][0], calls[i][1])] = i
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                i = running.pop(future)
                future.result()
                self.watcher.advance(name, items[i])


Submit = Callable[[Callable[..., Any], tuple[Any, ...]], "Future[Any]"]


@contextmanager
def _local(workers: int) -> Iterator[tuple[Submit, int]]:
    with processes(workers, 1) as pool:
        yield lambda function, arguments: pool.submit(function, *arguments), workers


@contextmanager
def _ray() -> Iterator[tuple[Submit, int]]:
    """Tasks on the cluster that is there (``RAY_ADDRESS``), or on one started here."""
    try:
        import ray
    except ImportError:
        raise UserError("engine=ray: Ray is not installed; run: pip install 'vxl-lightning[ray]'") from None
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False)
    task: Any = ray.remote(num_cpus=1, max_retries=3)(_call)
    try:
        workers = int(ray.cluster_resources().get("CPU", 1))
        yield lambda function, arguments: task.remote(function, arguments).future(), workers
    finally:
        if started:
            ray.shutdown()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    limit_threads(1)
    return function(*arguments)
