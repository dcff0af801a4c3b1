import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from vxl_lightning.ablation.cells import Step, Store, canonical, unique


def write(text):
    return lambda step, path: (path / "result.txt").write_text(text) and None


def test_key_depends_on_inputs_and_on_everything_upstream():
    a = Step("warmup", {"steps": 1, "lr": 0.5}, {})
    same = Step("warmup", {"lr": 0.5, "steps": 1}, {})
    other = Step("warmup", {"steps": 2, "lr": 0.5}, {})
    assert a.key == same.key != other.key
    tune = Step("tune", {"seed": 0}, {"language": a})
    assert tune.key != replace(tune, needs={"language": other}).key
    assert tune.key != replace(tune, kind="evaluate").key


def test_upstream_lists_what_is_needed_first_and_unique_lists_it_once():
    warm = Step("warmup", {}, {})
    cells = [Step("evaluate", {}, {"model": Step("tune", {"seed": s}, {"language": warm})}) for s in (0, 1)]
    order = unique([s for c in cells for s in c.upstream()])
    assert [s.kind for s in order] == ["warmup", "tune", "evaluate", "tune", "evaluate"]


def test_inputs_must_be_plain():
    with pytest.raises(TypeError):
        canonical({"path": object()})
    with pytest.raises(ValueError):
        canonical({"x": float("nan")})


def test_work_is_done_once(tmp_path):
    store, step = Store(tmp_path), Step("tune", {"seed": 0}, {})
    assert store.run(step, write("first"))
    assert not store.run(step, write("second"))
    assert (store.path(step) / "result.txt").read_text() == "first"


def test_failed_work_leaves_nothing_that_counts(tmp_path):
    store, step = Store(tmp_path), Step("tune", {"seed": 0}, {})

    def fail(_, path):
        (path / "half.txt").write_text("half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        store.run(step, fail)
    assert not store.done(step)
    assert store.run(step, write("whole"))
    assert sorted(p.name for p in store.path(step).iterdir()) == ["result.txt", "step.json"]


def test_killed_work_is_done_again_and_its_lock_is_free(tmp_path):
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from vxl_lightning.ablation.cells import Step, Store
        def work(step, path):
            (path / "half.txt").write_text("half")
            print("working", flush=True)
            time.sleep(60)
        Store(Path(sys.argv[1])).run(Step("tune", {"seed": 0}, {}), work)
    """)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "working\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store, step = Store(tmp_path), Step("tune", {"seed": 0}, {})
    assert not store.done(step)
    assert store.run(step, write("whole"))
    assert not (store.path(step) / "half.txt").exists()
