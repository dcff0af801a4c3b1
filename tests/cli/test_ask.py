import shutil
from importlib import metadata

import pytest
import torch
from PIL import Image
from tests.ablation import tiny

from vxl_lightning.cli.main import main
from vxl_lightning.data.decoding import write_video
from vxl_lightning.encoders.efficientnet_lite0 import WEIGHTS_PACKAGE
from vxl_lightning.models.build import AdapterConfig, VideoLMConfig, build_video_lm
from vxl_lightning.models.pretrained import save_pretrained

ENCODER = {"name": "efficientnet_lite0"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    try:
        metadata.distribution(WEIGHTS_PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip("needs the demo's packages: make demo-packages")
    from vxl_lightning import registry

    root = tmp_path_factory.mktemp("ask")
    dim = registry.build("encoder", ENCODER).dim
    tiny.language_model(root / "lm")
    config = VideoLMConfig(
        dim=dim, language_model=str(root / "lm"), compressor={"name": "pool"}, adapter=AdapterConfig(rank=0)
    )
    model = build_video_lm(config)
    save_pretrained(root / "model", model, config, encoder=ENCODER)
    save_pretrained(root / "compressor", model.compressor, config.compressor, encoder=ENCODER)
    frames = torch.randint(0, 256, (40, 3, 96, 128), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    write_video(root / "video.mp4", frames, 5.0)
    (root / "damaged.mp4").write_bytes((root / "video.mp4").read_bytes()[:500])
    return root


def ask(world, *arguments):
    return main(["ask", *(str(world / a) if (world / a).exists() and a else a for a in arguments)])


def test_answers_with_span_and_costs_and_draws_what_was_kept(world, tmp_path, capsys):
    picture = tmp_path / "kept.png"
    arguments = ("model", "video.mp4", "Which shape ?", "--choices", "circle,square", "--show", str(picture))
    assert ask(world, *arguments) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] in ("circle", "square")
    assert "rests most on" in said and "16 frames" in said
    for step in ("decode", "encode", "compress", "select", "answer"):
        assert f"\n{step} " in said
    assert Image.open(picture).size[0] > 300


def test_free_text_is_answered_and_repeats(world, capsys):
    first, second = (
        ask(world, "model", "video.mp4", "When ?") or capsys.readouterr().out.splitlines()[0] for _ in "ab"
    )
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model", "video.mp4", "  "), "question is empty"),
        (("nowhere", "video.mp4", "When ?"), "nowhere: no config.json"),
        (("model", "missing.mp4", "When ?"), "no such video file"),
        (("model", "damaged.mp4", "When ?"), "damaged.mp4"),
        (("compressor", "video.mp4", "When ?"), "compressor alone"),
        (("model", "video.mp4", "When ?", "--choices", " , "), "holds no answer"),
        (("model", "video.mp4", "When ?", "--show", "picture.txt"), "must end in one of"),
        (("model", "video.mp4", "When ?", "--fps", "0"), "fps=0"),
        (("model", "video.mp4", "When ?", "--show", "nowhere/kept.png"), "nowhere is not a folder"),
        (("model", "", "When ?"), "is a folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(world, capsys, arguments, message):
    assert ask(world, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1


def test_a_model_that_forgot_its_encoder(world, tmp_path, capsys):
    shutil.copytree(world / "model", tmp_path / "model")
    described = (tmp_path / "model" / "config.json").read_text()
    import json

    plain = json.loads(described) | {"encoder": None}
    (tmp_path / "model" / "config.json").write_text(json.dumps(plain))
    assert ask(world, str(tmp_path / "model"), "video.mp4", "When ?") == 2
    assert "does not record its encoder" in capsys.readouterr().err
