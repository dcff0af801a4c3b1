"""Read-outs find what tokens name, and nothing where they name nothing."""

import torch
from tests import tiny_lm
from tests.models.test_video_lm import grid, make

from vxl_lightning.models.alignment import spoken
from vxl_lightning.models.read_out import options, read_outs


def samples():
    return [tiny_lm.sample(0, 5.0, "blue", "star"), tiny_lm.sample(1, 0.0, "red", "disk")]


def test_a_video_told_in_words_is_read_without_a_mistake():
    model, told_of = make(tiny_lm.language_model()), samples()
    named = options(told_of)
    assert named == {"colour": ["blue", "red"], "shape": ["disk", "star"]}
    with torch.no_grad():
        rows = read_outs(model, spoken(model, told_of, grid(2).times, 3), told_of, named)
    assert [[r["task"] for r in video] for video in rows] == [["read colour", "read shape", "read when"]] * 2
    assert [[r["answer"] for r in video] for video in rows] == [["blue", "star", "4 s"], ["red", "disk", "0 s"]]
    assert all(r["prediction"] == r["answer"] for video in rows for r in video)


def test_other_words_are_read_wrong():
    model, told_of = make(tiny_lm.language_model()), samples()
    others = [tiny_lm.sample(0, 5.0, "red", "disk"), tiny_lm.sample(1, 0.0, "blue", "star")]
    with torch.no_grad():
        rows = read_outs(model, spoken(model, others, grid(2).times, 3), told_of, options(told_of))
    assert not any(r["prediction"] == r["answer"] for video in rows for r in video if r["task"] != "read when")
