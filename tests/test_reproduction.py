"""The reproduction sheet: each of its commands is one that the project takes, and each figure has one or a reason."""

import inspect
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from tests import released_checkpoint

from vxl_lightning import config, registry
from vxl_lightning.ablation.config import AblationConfig, parse_variants
from vxl_lightning.cli.main import build_parser, main
from vxl_lightning.data.decoding import write_video
from vxl_lightning.evaluation.config import EvaluationConfig
from vxl_lightning.evaluation.models import answerer_from
from vxl_lightning.evaluation.needles.config import NeedleEvaluationConfig
from vxl_lightning.models.released.video_xl_pro import KEEP, ROUND_TO

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/reproduction.md").read_text()
PUBLISHED = (
    "57.9", "62.6", "68.1", "5.27", "46.9", "4.51", "98.85 %", "4 cells of 70", "over 8K", "10,000, nearly 98 %", "3B",
    "2.0M + 0.8M", "2,048, about 95 %", "55.5 / 61.0",
)  # fmt: skip
"""Every figure of Video-XL-Pro's abstract and README, and those of its predecessor beside them."""


def commands(text: str = TEXT) -> list[str]:
    """What is to be typed: lines of listings, and code in the text that begins with a command."""
    listings = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`((?:vxl|python|lmms-eval) [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return list(dict.fromkeys([line for listing in listings for line in listing.splitlines()] + inline))


def spoken_of(command: str) -> bool:
    """Whether a command is named with capitals in the place of what a reader gives, and not to be run as it stands."""
    return bool(re.search(r"\b[A-Z]{3,}\b", command)) or len(command.split()) < 3


RUN = [c for c in commands() if c.startswith("vxl ") and not spoken_of(c)]


def rows() -> list[list[str]]:
    """Cells of the figures' table, without its head."""
    section = TEXT.split("\n## The figures\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_published_figure_is_on_the_sheet() -> None:
    assert sorted(row[1] for row in rows()) == sorted(PUBLISHED)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_figure_has_a_command_and_what_differs_or_a_reason(row: list[str]) -> None:
    _, _, command, read, differs = row
    if command.startswith("none: "):
        assert len(command.split()) >= 2 and not read
    else:
        assert commands(command) == [command.strip("`")] and read and differs


def test_the_sheet_has_commands_of_every_kind() -> None:
    kinds = {tuple(c.split()[: 3 if c.startswith("vxl data") else 2]) for c in RUN}
    assert kinds >= {("vxl", "convert"), ("vxl", "eval"), ("vxl", "ablate"), ("vxl", "train"), ("vxl", "data", "prune")}


@pytest.mark.parametrize("command", RUN)
def test_a_command_is_one_that_vxl_takes(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)[1:]
    if words[0] == "convert":
        build_parser("convert").parse_args(words)
        return
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text("datasets: []\n")
    words = [str(mixture) if word == mixture.name else word for word in words]
    assert main([*words, "--print-config"]) == 0, capsys.readouterr().err
    # Rows and benchmarks are looked at when the command runs.
    overrides = [word for word in words[2:] if not word.startswith("--")]
    if words[0] == "ablate":
        parse_variants(config.load(AblationConfig, [words[1]], overrides).variants)
    elif words[0] == "eval" and config.read(words[1]).get("kind") != "needles":
        for one in config.load(EvaluationConfig, [words[1]], overrides).benchmarks:
            registry.config("benchmark", {"name": one} if isinstance(one, str) else dict(one))


def test_lmms_eval_is_given_what_a_model_of_ours_takes() -> None:
    (command,) = [shlex.split(c) for c in commands() if c.startswith("lmms-eval")]
    given = dict(pair.split("=") for pair in command[command.index("--model_args") + 1].split(","))
    assert set(given) <= {"model", "fps", "max_frames", *inspect.signature(answerer_from).parameters}
    ours = config.load(EvaluationConfig, [ROOT / "conf/reproduction/benchmarks.yaml"])
    assert all(str(getattr(ours, key)) in (value, f"{value}.0") for key, value in given.items())


def test_the_numbers_of_the_needles_are_those_of_their_configuration() -> None:
    grid = config.load(NeedleEvaluationConfig, [ROOT / "conf/reproduction/needles.yaml"])
    assert f"{sum(grid.lengths) * len(grid.depths) * grid.per_cell:,} frames" in TEXT
    assert f"{len(grid.depths)} depths by {len(grid.lengths)} lengths" in TEXT

    def positions(frames: int) -> int:
        groups = frames // 4
        return int(groups * 144 * KEEP) // ROUND_TO * ROUND_TO + groups * 10

    assert round(positions(10_000), -3) == 331_000 and "331,000 positions" in TEXT
    assert round(positions(8_192), -3) == 271_000 and "271,000 places" in TEXT
    contexts = [int(n) for n in re.findall(r"--context (\d+)", "\n".join(RUN))]
    assert min(contexts) >= positions(10_000) + 1000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny released checkpoint, and the miniatures of the benchmarks with videos, where the sheet has them."""
    root = tmp_path_factory.mktemp("reproduction")
    (root / "conf").symlink_to(ROOT / "conf")
    (root / "models").mkdir()
    released_checkpoint.write(root / "models/Video-XL-Pro-3B", released_checkpoint.tensors())
    frames = torch.randint(0, 256, (20, 3, 32, 48), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    write_video(root / "film.mp4", frames, 2.0)
    for name in ("video_mme", "mlvu_dev", "mlvu_test"):
        cls = registry.get("benchmark", name)
        folder = root / "data/benchmarks" / cls.folder_name
        folder.mkdir(parents=True)
        cls.miniature(folder)
        benchmark = cls(cls.Config(), folder)
        for problem in benchmark.missing(benchmark.read().questions):
            (folder / problem.where).parent.mkdir(parents=True, exist_ok=True)
            write_video(folder / problem.where, frames[:4], 2.0)
    return root


def test_the_sheet_is_followed_from_the_checkpoint_to_its_figures(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    assert main(shlex.split(next(c for c in RUN if c.startswith("vxl convert")))[1:]) == 0
    capsys.readouterr()
    for command in (shlex.split(row[2].strip("`")) for row in rows() if row[3]):
        if command[0] == "python":
            exec(command[2], {})
            assert int(capsys.readouterr().out.split()[-1]) > 0
        elif "benchmarks.yaml" in command[2]:
            assert main([*command[1:], "--dry-run"]) == 0, capsys.readouterr().err
    # In float32: half precision is slow where there is no GPU.
    small = ["limit=1", "pictures=0", "precision=float32"]
    assert main(["eval", "conf/reproduction/benchmarks.yaml", *small]) == 0, capsys.readouterr().err
    made = pq.read_table("runs/reproduction/benchmarks/results.parquet").to_pylist()
    headlines = {f"`{row['figure']}`" for row in made if row["headline"]}
    assert headlines == {row[3] for row in rows() if "benchmarks.yaml" in row[2]}
    small = ["lengths=[8]", "depths=[0.5]", "per_cell=1", "haystack=film.mp4", "out=needles", "precision=float32"]
    assert main(["eval", "conf/reproduction/needles.yaml", *small]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "retrieval chosen" in said and "peak MiB" in said
    assert (world / "needles/needle.html").is_file()
