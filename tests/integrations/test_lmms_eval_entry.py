"""What lmms-eval finds of us, without lmms-eval."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

HEAVY = ("torch", "transformers", "lightning", "lmms_eval")


def test_the_entry_point_names_a_function_that_is_there() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["lmms_eval.models"]["vxl"].partition(":")
    assert callable(getattr(import_module(module), name))


def test_loading_the_entry_point_imports_nothing_heavy() -> None:
    code = f"import sys, vxl_lightning.integrations.lmms_eval; sys.exit(any(m in sys.modules for m in {HEAVY}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
