"""The command line as a whole: light to start, one-line errors, exit code 2."""

import subprocess
import sys

import pytest

from vxl_lightning.cli.main import COMMANDS, main


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, vxl_lightning; heavy = {'torch', 'lightning', 'transformers', 'omegaconf'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tokens_import_torch_alone() -> None:
    code = (
        "import sys, vxl_lightning.tokens, vxl_lightning.compressors.base; "
        "sys.exit(1 if {'lightning', 'transformers', 'omegaconf', 'webdataset'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_lists_every_command_without_importing_one() -> None:
    code = (
        "import sys, contextlib, io\nfrom vxl_lightning.cli.main import main\nout = io.StringIO()\n"
        "with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):\n    main(['--help'])\n"
        "assert 'torch' not in sys.modules and 'rich' not in sys.modules\nprint(out.getvalue())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    assert command in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["compress"])
    assert done.value.code == 2
    assert "ablate" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "ablate"])
def test_a_missing_configuration_is_one_line_and_exit_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "nowhere.yaml"]) == 2
    error = capsys.readouterr().err
    assert "nowhere.yaml" in error and error.count("\n") == 1


def test_doctor_names_what_works_and_how_to_mend_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    out = capsys.readouterr().out
    assert "PyTorch" in out and "FFmpeg" in out
    assert code in (0, 2)
