"""``vxl eval`` of needles: what it is about to do, its configuration, and users' mistakes."""

import pytest

from vxl_lightning.cli.main import main


@pytest.fixture
def conf(tmp_path):
    file = tmp_path / "needle.yaml"
    file.write_text("kind: needles\nmodel: nowhere\nlengths: [1, 32]\ndepths: [0, 1]\nper_cell: 3\n")
    return str(file)


def test_a_dry_run_says_how_much_it_is(conf, capsys):
    assert main(["eval", conf, "--dry-run", "per_cell=2"]) == 0
    assert "8 haystacks of 132 frames in all, 1 row" in capsys.readouterr().out


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
        (["--data-root", "somewhere"], "--data-root"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(conf, capsys, more, message):
    assert main(["eval", conf, *more]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
