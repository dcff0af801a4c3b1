"""Processes that end with whoever started them, and calls that can be killed."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

_START = 600
"""Seconds that a busy machine may take to start a process."""


class CallFailed(Exception):
    """A call in another process did not come back: it took too long, or its process died."""


def processes(workers: int, threads: int) -> ProcessPoolExecutor:
    """Worker processes of ``threads`` CPU threads each.

    Spawned, not forked: a fork would inherit the thread pools of torch in whatever state they are.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(threads,))


def limit_threads(threads: int) -> None:
    """CPU threads of torch in this process, which may not have imported it yet and may never need to."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def _begin(threads: int) -> None:
    """A worker's first call."""
    limit_threads(threads)
    end_with_parent()


def end_with_parent() -> None:
    """Make this process end when the one that started it does, however that ended.

    A worker whose parent was killed would go on unseen, and hold the lock of work that is asked for again.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Killable:
    """Calls of one function, each in a process that is killed when it takes too long.

    Native code that hangs cannot be stopped from inside its own process. The process serves call after call and
    is started again after it was killed or died.

    Args:
        function: of a module, so that another process finds it; its arguments and result are pickled.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._process: Any = None
        self._connection: Connection | None = None

    def __call__(self, *arguments: Any, timeout: float) -> Any:
        """The function's result.

        Raises:
            CallFailed: no result within ``timeout`` seconds, or the process died.
            Exception: what the function raised.
        """
        if self._process is None or not self._process.is_alive():
            self._start()
        assert self._connection is not None
        try:
            self._connection.send(arguments)
            if not self._connection.poll(timeout):
                self.close()
                raise CallFailed(f"took over {timeout:g} s")
            worked, result = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join(5)  # its pipe breaks a moment before it is gone
            code = self._process.exitcode
            self.close()
            raise CallFailed(f"its process died (exit code {code})") from None
        if not worked:
            raise result
        return result

    def _start(self) -> None:
        self.close()
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(self.function, there), daemon=True)
        self._process.start()
        there.close()
        self._connection = here
        # Starting, with its imports, is not part of a call's time.
        if not here.poll(_START) or here.recv() != "ready":
            self.close()
            raise RuntimeError(f"a helper process did not start within {_START} s")

    def close(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            assert self._connection is not None
            self._connection.close()
        self._process = self._connection = None


def _serve(function: Callable[..., Any], connection: Connection) -> None:
    end_with_parent()
    connection.send("ready")
    while True:
        try:
            arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((True, function(*arguments)))
        except Exception as error:
            connection.send((False, error))
