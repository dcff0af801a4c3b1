"""From the file to the tokens: planting, chunks, and what is shared."""

import pytest
import torch
from tests.evaluation.needles import tiny_road

from vxl_lightning.data.decoding import stream_frames
from vxl_lightning.evaluation.needles import road
from vxl_lightning.evaluation.needles.config import NeedleEvaluationConfig
from vxl_lightning.evaluation.needles.plant import Cell, plant
from vxl_lightning.tokens import VideoGrid


@pytest.fixture(scope="module")
def hay(tmp_path_factory):
    return tiny_road.hay(tmp_path_factory.mktemp("hay"))


def planted(length=37, **values):
    config = NeedleEvaluationConfig(model="somewhere", **values)
    return plant(config, Cell(length, 0.5, 0), tiny_road.FRAMES, tiny_road.FPS, 4)


def test_only_the_needles_frames_change_and_only_where_they_are_drawn():
    found = planted()
    before = torch.full((37, 3, 64, 64), 90, dtype=torch.uint8)
    after = before.clone()
    for first in range(0, 37, 8):
        road.plant_into(after[first : first + 8], first, found.needles)
    changed = (after != before).any(1)
    assert changed.flatten(1).any(1).nonzero().flatten().tolist() == [n.frame for n in found.needles]
    for n in found.needles:
        rows, columns = changed[n.frame].nonzero(as_tuple=True)
        for places, middle in ((rows, n.y), (columns, n.x)):
            assert middle * 64 - n.radius * 64 - 2 <= places.min() < places.max() <= middle * 64 + n.radius * 64 + 2


@pytest.mark.parametrize("compressor", ["pool", "dts", "none", "uniform"])
def test_how_a_video_is_cut_into_chunks_does_not_matter(hay, compressor):
    model, found = tiny_road.model(compressor), planted()
    encoder = tiny_road.MeanColours()
    times = hay.times(found.begin, 37)
    frames = torch.cat([f for f, _ in stream_frames(hay.path, times, encoder.frame_size)])
    road.plant_into(frames, 0, found.needles)
    with torch.no_grad():
        seconds = torch.arange(37)[None] / tiny_road.FPS
        whole = model.project(VideoGrid.of(encoder(frames).features[None], seconds))
    for chunk in (5, 8, 32, 64):
        (watched,) = road.watch(hay, found, encoder, [model], chunk).values()
        assert watched.projected is not None
        torch.testing.assert_close(watched.projected.features, whole.features, atol=1e-5, rtol=1e-5)
        assert torch.equal(watched.projected.tokens.source, whole.tokens.source)
        assert torch.equal(watched.projected.times, whole.times)
        torch.testing.assert_close(watched.projected.tokens.span, whole.tokens.span)
        assert {"decode", "plant", "encode", "compress"} <= set(watched.spent)


def test_rows_of_one_compressor_share_what_it_gives_and_no_grid_is_held(hay, monkeypatch):
    base = tiny_road.model()
    steps = []
    step = base.compressor.step
    monkeypatch.setattr(
        base.compressor, "step", lambda grid, *a, **k: steps.append(grid.shape[1]) or step(grid, *a, **k)
    )
    other = tiny_road.model("uniform")
    models = [base, tiny_road.beside(base, "uniform", 2), other]
    found = road.watch(hay, planted(), tiny_road.MeanColours(), models, chunk=16)
    assert list(found) == [base.compressor, other.compressor] and steps == [16, 16, 5]
    assert found[base.compressor].grid is None


def test_a_compressor_that_reads_the_question_is_given_the_grid(hay):
    model = tiny_road.model()
    model.compressor.needs_query = True
    (watched,) = road.watch(hay, planted(), tiny_road.MeanColours(), [model]).values()
    assert watched.projected is None and watched.grid.shape[:2] == (1, 37)
    spent = {}
    assert len(watched.of(model, "What shape?", spent).features) == 40 and "compress" in spent


def test_a_model_in_half_precision_holds_a_video_in_it(hay):
    model = tiny_road.model("none").bfloat16()
    (watched,) = road.watch(hay, planted(), tiny_road.MeanColours(), [model]).values()
    assert watched.projected is not None
    assert watched.projected.tokens.features.dtype == watched.projected.features.dtype == torch.bfloat16
