"""Haystacks: made from footage, or given."""

import pytest
import torch
from tests.evaluation.needles import tiny_road

from vxl_lightning.data.decoding import probe
from vxl_lightning.data.synth.footage import Footage, Source
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.needles import haystack


@pytest.fixture
def films(monkeypatch):
    monkeypatch.setattr(haystack, "SPARE", 10)
    noise = torch.randint(0, 256, (60, 3, 72, 96), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    footage = Footage([(Source("noise", "nowhere", "", "test", ""), noise)], [])
    monkeypatch.setattr(haystack.Footage, "load", lambda split: footage)


def test_it_has_the_frames_asked_for_and_is_the_same_file_for_the_same_seed(films, tmp_path):
    told = []
    one = haystack.made(tmp_path / "a", "test", 50, 4.0, 0, lambda done, total: told.append((done, total)))
    two, other = (haystack.made(tmp_path / "b", "test", 50, 4.0, seed) for seed in (0, 1))
    assert one.path.read_bytes() == two.path.read_bytes() != other.path.read_bytes()
    assert one.path.name == two.path.name != other.path.name and one.fingerprint == two.fingerprint
    info = probe(one.path)
    assert (info.num_frames, info.width, info.height) == (60, 128, 128) and info.fps == pytest.approx(4)
    assert one.frames == 60 and told[-1] == (60, 60)


def test_what_is_there_is_not_made_again(films, tmp_path, monkeypatch):
    first = haystack.made(tmp_path, "test", 30, 4.0, 0)
    monkeypatch.setattr(haystack, "write_stream", None)
    assert haystack.made(tmp_path, "test", 30, 4.0, 0) == first


def test_a_video_of_ones_own_is_looked_at_as_it_is(tmp_path):
    found = tiny_road.hay(tmp_path)
    assert found.frames == tiny_road.FRAMES and found.times(3, 2) == [0.75, 1.0]
    half = haystack.given(found.path, 2.0, 10)
    assert half.frames == tiny_road.FRAMES // 2 and half.times(3, 2) == [1.5, 2.0]
    with pytest.raises(UserError, match="lengths asks for 73"):
        haystack.given(found.path, 4.0, 73)
    with pytest.raises(UserError, match="lower fps"):
        haystack.given(found.path, 5.0, 10)
