import hashlib
import json
import linecache
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from vxl_lightning import registry
from vxl_lightning.ablation.plan import make_plan
from vxl_lightning.ablation.runner import run, store_of
from vxl_lightning.config import to_plain
from vxl_lightning.errors import UserError

REPEATED = ("results.parquet", "predictions.parquet", "comparisons.parquet", "table.md", "table.tex")


def digests(out):
    return {name: hashlib.sha256((Path(out) / name).read_bytes()).hexdigest() for name in REPEATED}


def kinds(config):
    plan = make_plan(config)
    return [s.kind for s in plan.steps]


def test_same_configuration_twice_gives_identical_tables(make_config):
    recot = ["variants.recot.compressor=dts", "variants.recot.init=reconstruct", "variants.recot.masker=random"]
    first, second = (make_config(*recot, out=name) for name in ("a", "b"))
    assert digests(run(first)) == digests(run(second))
    table = pq.read_table(Path(first.out) / "results.parquet").to_pylist()
    rows = {r["variant"]: r for r in table if r["task"] == "all"}
    assert list(rows) == ["none", "random", "pool", "dts", "recot"]
    assert {r["lm_tokens"] for n, r in rows.items() if n != "none"} == {8} and rows["none"]["lm_tokens"] == 128
    assert rows["none"]["kv_length"] - 128 == rows["dts"]["kv_length"] - 8
    assert rows["dts"]["layer_mean_tokens"] == 8 and rows["dts"]["prefill_flops"] < rows["none"]["prefill_flops"]
    assert rows["recot"]["gain"] is not None and rows["dts"]["gain"] is None
    assert rows["dts"]["n"] == 18 and rows["dts"]["videos"] == 6
    timings = pq.read_table(Path(first.out) / "timings.parquet").to_pylist()
    assert all(t["prefill_ms"] > 0 and t["peak_memory_mib"] > 10 and t["decode_ms"] is None for t in timings)
    assert "dts" in (Path(first.out) / "report.html").read_text()
    models = {link.name: link for link in (Path(first.out) / "models").iterdir()}
    assert "none-1-seed-0" in models and all((link / "config.json").is_file() for link in models.values())


def test_steps_are_shared_and_depend_on_what_they_must(make_config):
    base = make_config("variants.recot.compressor=dts", "variants.recot.init=reconstruct", "seeds=[0,1]")
    assert kinds(base).count("warmup") == 1 and kinds(base).count("pretrain") == 2
    assert kinds(base).count("tune") == kinds(base).count("evaluate") == 10

    def keys(*overrides):
        return {s.kind + s.key for s in make_plan(make_config(*overrides)).steps}

    plain = keys()
    assert keys("out=elsewhere", "workers=2", "name=other") == plain
    assert len(keys("tune.align.optim.lr=0.5") & plain) == 1, "the warm-up stays"
    assert not keys("warmup.seed=1") & plain
    assert len(keys("evaluate.batch_size=2") & plain) == 5, "only the answers change"
    assert len(keys("variants.dts.compressor.depth=1") & plain) == len(plain) - 2, "one row changes"


@pytest.mark.slow
def test_killed_and_resumed_gives_the_uninterrupted_tables(make_config, tmp_path):
    whole, broken = make_config(out="whole"), make_config(out="broken")
    expected = digests(run(whole))
    (tmp_path / "conf.yaml").write_text(yaml.safe_dump(to_plain(broken)))
    script = textwrap.dedent("""
        import sys
        from vxl_lightning.ablation.config import AblationConfig
        from vxl_lightning.ablation.runner import run
        from vxl_lightning.config import load
        run(load(AblationConfig, [sys.argv[1]]))
    """)
    store = store_of(broken)
    for wanted in (1, 4):
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "conf.yaml")])
        deadline = time.monotonic() + 120
        while len(list(store.root.glob("*/*/step.json"))) < wanted and time.monotonic() < deadline:
            assert process.poll() is None, "killed before it could finish"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (Path(broken.out) / "results.parquet").exists()
    assert digests(run(broken)) == expected


@pytest.mark.slow
def test_workers_give_the_same_tables(make_config):
    assert digests(run(make_config(out="one"))) == digests(run(make_config("workers=2", out="two")))


@pytest.mark.slow
def test_ray_gives_the_same_tables(make_config):
    pytest.importorskip("ray")
    assert digests(run(make_config(out="one"))) == digests(run(make_config("workers=2", "engine=ray", out="ray")))


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A distribution that brings a compressor, on the path for this test alone."""
    site = tmp_path / "site"
    info = site / "stranger-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[vxl_lightning.compressors]\nstrange = stranger_module:Strange\n")
    source = """
        from dataclasses import dataclass
        from vxl_lightning.compressors.pool import Pool

        class Strange(Pool):
            @dataclass(frozen=True, kw_only=True)
            class Config(Pool.Config):
                pass
    """
    (site / "stranger_module.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(site))
    registry.clear()
    yield site / "stranger_module.py"
    sys.modules.pop("stranger_module", None)
    monkeypatch.undo()
    registry.clear()


def test_a_strangers_plugin_is_a_row_and_its_source_is_part_of_the_key(make_config, stranger):
    config = make_config("variants={}", "variants.new.compressor=strange", "tune.answer.batch_size=0")
    before = make_plan(config)
    out = run(config, before)
    assert "| new | 8 |" in (out / "table.md").read_text()
    plugins = {p["name"]: p for p in json.loads((out / "manifest.json").read_text())["plugins"]}
    assert plugins["strange"]["distribution"] == "stranger" and plugins["strange"]["version"] == "1.2"
    stranger.write_text(stranger.read_text() + "\n# edited\n")
    sys.modules.pop("stranger_module")
    registry.clear()
    linecache.clearcache()
    changed = {s.key for s in make_plan(config).steps} - {s.key for s in before.steps}
    assert len(changed) == 2, "its tuning and its answers, nothing else"


def test_selector_and_untuned_rows(make_config):
    config = make_config(
        "variants={}", "variants.few.compressor=dts", "variants.few.selector=similarity", "variants.few.select=1",
        "variants.cold.compressor=dts", "variants.cold.tune=false",
    )  # fmt: skip
    out = run(config)
    rows = {r["variant"]: r for r in pq.read_table(out / "results.parquet").to_pylist()}
    assert rows["few"]["lm_tokens"] == 4 and rows["few"]["selector"] == "similarity"
    assert "cold (not tuned)" in (out / "table.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["variants.x=nothing"], "no compressor 'nothing'"),
        (["variants.x.compresor=dts"], "variants.x: unknown key 'compresor' .did you mean 'compressor'"),
        (["variants.x.compressor.name=dts", "variants.x.compressor.retention=0.5"], "the budget sets it"),
        (["variants.x.compressor=random", "variants.x.init=reconstruct"], "nothing to train"),
        (["variants.x.compressor=dts", "variants.x.init=magic"], "none, autoencode, reconstruct"),
        (["variants.x.compressor=dts", "variants.x.selector=similarity"], "go together"),
        (["variants.pool.compressor=dts"], "every ablation compares with"),
        (["data.test=/nowhere"], "not a dataset"),
        (["data.test=''"], "data.test is missing"),
        (["budgets=[0.6]"], "retention=0.6"),
        (["budgets=[0.001]"], "retention=0.001 of 64 cells is 0.064 tokens"),
        (["budgets=[2]"], "not in .0, 1"),
        (["variants.x.compressor=random", "variants.x.budgets=[0.3]"], "variants.x.budgets: 0.3 is none of"),
        (["evaluate.picture=99"], "samples 0 to 5"),
        (["language_model=gpt9"], "language_model='gpt9'"),
    ],
)
def test_mistakes_are_named_before_anything_runs(make_config, overrides, message):
    with pytest.raises((UserError, ValueError), match=message):
        make_plan(make_config(*overrides))


def test_a_row_with_a_cache_holds_fewer_keys_than_tokens_it_reads(make_config):
    cache = "{name: quantized, retention: 0.5, window: 0, block: 1}"
    out = run(make_config("variants.plain.compressor=dts", f"variants.kept={{compressor: dts, cache: {cache}}}"))
    rows = {r["variant"]: r for r in pq.read_table(out / "results.parquet").to_pylist()}
    plain, kept = rows["plain"], rows["kept"]
    assert kept["lm_tokens"] == plain["lm_tokens"] == plain["layer_mean_tokens"]
    assert 0 < kept["layer_mean_tokens"] < plain["layer_mean_tokens"]
    assert kept["kv_length"] < plain["kv_length"] and kept["kv_bytes"] < plain["kv_bytes"]
