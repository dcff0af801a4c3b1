"""Every configuration that is shipped is one that its command accepts."""

from pathlib import Path

import pytest

from vxl_lightning import config
from vxl_lightning.ablation.config import AblationConfig, parse_variants
from vxl_lightning.evaluation.config import AskingConfig, EvaluationConfig
from vxl_lightning.evaluation.needles.config import NeedleEvaluationConfig

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(CONF.rglob("*.yaml"))


def schema_of(file: Path) -> type:
    from vxl_lightning.data.synth.build import SynthConfig
    from vxl_lightning.modules.train import TrainConfig

    head = file.read_text().splitlines()[0]
    commands: dict[str, type] = {"vxl ablate": AblationConfig, "vxl data synth": SynthConfig, "vxl train": TrainConfig}
    commands["vxl eval"] = NeedleEvaluationConfig if "kind: needles" in file.read_text() else EvaluationConfig
    (schema,) = [s for command, s in commands.items() if command in head]
    return schema


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(CONF)))
def test_it_parses_and_its_first_line_names_its_command(file: Path) -> None:
    settings = config.load(schema_of(file), [file])
    if isinstance(settings, AblationConfig):
        assert {"none", "random", "pool"} < set(parse_variants(settings.variants))
    if isinstance(settings, AskingConfig):
        # A published figure is of one model, as it is.
        assert ("reproduction" in file.parts) == (set(settings.rows) == {"reference"})


def test_there_are_configurations() -> None:
    assert FILES
