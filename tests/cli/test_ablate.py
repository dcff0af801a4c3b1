import pytest
import yaml
from tests.ablation import tiny

from vxl_lightning.cli.main import main


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    root = tmp_path_factory.mktemp("ablate")
    tiny.language_model(root / "lm")
    stage = {"batch_size": 4, "optim": {"steps": 1}}
    content = {
        "name": "tiny", "out": str(root / "out"), "language_model": str(root / "lm"), "threads": 1,
        "data": {"train": str(tiny.shards(root / "train", 8, 1)), "test": str(tiny.shards(root / "test", 4, 2))},
        "warmup": {"align": stage, "answer": {"batch_size": 0}},
        "tune": {"align": stage, "answer": {"batch_size": 0}},
        # The same as the row `pool`, so all of its steps are shared.
        "variants": {"averaged": {"compressor": "pool"}},
    }  # fmt: skip
    path = root / "conf.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_dry_run_runs_nothing_then_runs_then_everything_is_cached(conf, capsys):
    assert main(["ablate", str(conf), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "10 steps, 0 cached" in said and "averaged" in said and not (conf.parent / "out").exists()
    assert main(["ablate", str(conf)]) == 0
    said = capsys.readouterr().out
    for row in ("chance", "none", "random", "pool", "averaged"):
        assert f"\n{row} " in said
    assert (conf.parent / "out" / "report.html").exists()
    assert main(["ablate", str(conf), "--dry-run"]) == 0
    assert "10 steps, 10 cached, 0 to do" in capsys.readouterr().out


def test_print_config_is_complete_and_loads_back(conf, tmp_path, capsys):
    assert main(["ablate", str(conf), "seeds=[3,4]", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["seeds"] == [3, 4] and "# Every variant is pretrained" in printed
    (tmp_path / "again.yaml").write_text(printed)
    assert main(["ablate", str(tmp_path / "again.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sedes=[1]", "did you mean 'seeds'"),
        ("data.test=/nowhere", "not a dataset"),
        ("variants.x=nothing", "no compressor 'nothing'"),
        ("engine=slurm", "expected one of ['local', 'ray']"),
        ("variants.x={compressor: dts, init: reconstruct}", "needs data.pretrain"),
        ("variants={a b: dts, a-b: dts}", "variants 'a b' and 'a-b' differ in spaces"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(conf, capsys, override, message):
    assert main(["ablate", str(conf), override, "--dry-run"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
