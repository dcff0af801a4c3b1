import os
import subprocess
import sys
import time

import psutil
import pytest

from vxl_lightning.parallel import CallFailed, Killable


def test_a_worker_ends_with_its_killed_parent():
    script = (
        "import os, time\n"
        "from vxl_lightning.parallel import processes\n"
        "if __name__ == '__main__':\n"
        "    pool = processes(1, 1)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    pool.submit(time.sleep, 600).result()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    worker.wait(timeout=60)
    assert not worker.is_running()


def act(what: str) -> object:
    if what == "hang":
        time.sleep(600)
    if what == "die":
        os._exit(3)
    if what == "raise":
        raise ValueError("told to")
    return os.getpid(), what


def test_a_call_that_hangs_or_dies_is_ended_and_the_next_one_is_served():
    calls = Killable(act)
    try:
        first, said = calls("hello", timeout=60)
        assert said == "hello" and first != os.getpid()
        assert calls("again", timeout=60) == (first, "again"), "one process serves call after call"
        with pytest.raises(CallFailed, match="took over"):
            calls("hang", timeout=0.5)
        assert not psutil.pid_exists(first)
        with pytest.raises(CallFailed, match="exit code 3"):
            calls("die", timeout=60)
        with pytest.raises(ValueError, match="told to"):
            calls("raise", timeout=60)
        assert calls("after", timeout=60)[1] == "after"
    finally:
        calls.close()
