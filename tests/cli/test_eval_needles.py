"""``vxl eval`` of needles: what it is about to do, its configuration, and users' mistakes."""

from importlib.metadata import PackageNotFoundError

import pytest
from tests.evaluation.needles import tiny_road

from vxl_lightning.cli.main import main
from vxl_lightning.evaluation import models


@pytest.fixture
def conf(tmp_path):
    file = tmp_path / "needle.yaml"
    file.write_text("kind: needles\nmodel: nowhere\nlengths: [1, 32]\ndepths: [0, 1]\nper_cell: 3\n")
    return str(file)


@pytest.fixture
def model(monkeypatch):
    """Of 4 frames a second, wherever it is looked for."""
    monkeypatch.setattr(models, "fitted", lambda folder, rows, **given: tiny_road.own())


def test_a_dry_run_says_how_much_it_is_and_does_nothing(conf, model, tmp_path, capsys):
    hay = tiny_road.hay(tmp_path).path
    before = sorted(tmp_path.rglob("*"))
    assert main(["eval", conf, "--dry-run", "per_cell=2", f"haystack={hay}", f"out={tmp_path / 'out'}"]) == 0
    assert "8 haystacks of 132 frames in all, 1 row" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("haystack=nowhere.mp4", "nowhere.mp4"),
        ("lengths=[73]", "has 72 frames at fps=4, lengths asks for 73"),
        ("fps=5", "has 4 frames a second"),
    ],
)
def test_a_haystack_that_cannot_be_is_refused_before_any_work_also_in_a_dry_run(
    conf, model, tmp_path, capsys, more, message, dry
):
    given = [f"haystack={tiny_road.hay(tmp_path).path}", f"out={tmp_path / 'out'}", more]
    assert main(["eval", conf, *given, *dry]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_footage_that_is_not_installed_is_refused_in_a_dry_run(conf, model, monkeypatch, capsys):
    monkeypatch.setattr("vxl_lightning.data.synth.footage.metadata.distribution", _not_installed)
    assert main(["eval", conf, "--dry-run"]) == 2
    assert "not installed" in capsys.readouterr().err


def _not_installed(package):
    raise PackageNotFoundError(package)


def test_the_configuration_is_printed_with_its_help(conf, capsys):
    assert main(["eval", conf, "--print-config"]) == 0
    said = capsys.readouterr().out
    assert "kind: needles" in said and "# Haystacks of every length and depth" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["lengths=[0]"], "lengths=[0]"),
        (["deepness=3"], "unknown key 'deepness'"),
        (["model=''"], "model is empty"),
        (["max_new_tokens=0"], "max_new_tokens=0"),
        (["variants={a: {selectr: uniform}}"], "unknown key 'selectr'"),
        ([], "nowhere: no config.json"),
        (["--dry-run"], "nowhere: no config.json"),
        (["--data-root", "somewhere"], "--data-root"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(conf, capsys, more, message):
    assert main(["eval", conf, *more]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
