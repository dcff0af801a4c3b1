"""A check that fails becomes a finding with its fix; required ones decide the exit code."""

import argparse

import pytest

from vxl_lightning.cli import doctor


def test_a_failing_check_is_reported_with_its_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise OSError("libavutil is not there\nsecond line")

    monkeypatch.setattr(doctor, "_CHECKS", [("codec", broken, "apt-get install ffmpeg", False)])
    (finding,) = doctor.examine()
    assert not finding.ok and finding.detail == "libavutil is not there"
    assert doctor.run(argparse.Namespace()) == 0, "an optional part does not fail the machine"
    assert "apt-get install ffmpeg" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "_CHECKS", [("codec", broken, "apt-get install ffmpeg", True)])
    assert doctor.run(argparse.Namespace()) == 2
