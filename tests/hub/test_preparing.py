"""What models are given of a video, family by family, against figures of the processors that their folders name.

The figures come from transformers' processors on the same frames (`striped`); `docs/any_model.md` tells how.
"""

import weakref

import pytest
import torch
from tests.hub import tiny_families as tiny
from tests.hub.tiny_processors import preparation, striped

from vxl_lightning.errors import UserError
from vxl_lightning.hub.frames import resized

TIMES = [1.0, 1.5, 2.25, 3.0, 61.5]
SHOWN = "<fake_token_around_image><global-img><image><image><image><image><fake_token_around_image>"
CELLS, NUMBERED = "<|video_pad|>" * 8, f"<img>{'<IMG_CONTEXT>' * 4}</img>"
TEXTS = {
    "qwen2_vl": CELLS * 3,
    "qwen2_5_vl": CELLS * 3,
    "qwen3_vl": "".join(
        f"<{t} seconds><|vision_start|>{CELLS}<|vision_end|>"
        for t in ("1.2", "2.6", "61.5")  # 1.25 and 2.625: a half goes to the even digit
    ),
    "llava_onevision": "<video>" * 21,
    "llava_next_video": "<video>" * 20,
    "smolvlm": "You are provided the following series of five frames from a 0:01:15 [H:MM:SS] video.\n"
    + "".join(f"\nFrame from {t}:{SHOWN}" for t in ("00:01", "00:01", "00:02", "00:03", "01:01"))
    + "\n\n",
    "internvl": "\n".join(f"Frame{n}: {NUMBERED}" for n in range(1, 6)),
    "video_llama_3": ",".join(f"Time {t}s:{CELLS}" for t in ("1.0", "1.5", "2.2", "3.0", "61.5")),
}
PIXELS = {  # shape; the first one, one after a third, one after half, the last one; their mean
    "qwen2_vl": ((96, 96), (-1.7777, -0.8726, 0.3537, 2.0037), 0.1644),
    "qwen2_5_vl": ((96, 96), (-1.7777, -0.8726, 0.3537, 2.0037), 0.1644),
    "qwen3_vl": ((96, 96), (-0.9922, -0.5059, 0.1529, 0.9216), -0.0131),
    "llava_onevision": ((1, 5, 3, 16, 16), (-1.7485, 0.4253, 1.7147, 1.9753), 0.2002),
    "llava_next_video": ((1, 5, 3, 16, 16), (-1.3981, 0.7666, 1.9248, 1.634), 0.2071),
    "smolvlm": ((1, 5, 3, 16, 16), (-0.9765, 0.051, 0.7804, 0.9059), 0.0059),
    "internvl": ((5, 3, 16, 16), (-1.7485, 0.4253, 1.7147, 1.9753), 0.2002),
    "video_llama_3": ((160, 48), (-0.9922, 0.6314, 0.1529, 0.9216), 0.0059),
}
PUBLISHED = {  # as published, with nothing said: 8 frames of 360 x 640, 3 of 1080 x 607; cells of the prompt
    "qwen2_vl": (((4784, 1176), 1196), ((5760, 1176), 1440)),
    "qwen3_vl": (((1456, 1536), 364), ((1848, 1536), 462)),
    "llava_onevision": (((1, 8, 3, 384, 384), 1569), ((1, 3, 3, 384, 384), 589)),
    "llava_next_video": (((1, 8, 3, 224, 224), 512), ((1, 3, 3, 224, 224), 192)),
    "smolvlm": (((1, 8, 3, 364, 364), 648), ((1, 3, 3, 364, 364), 243)),
    "internvl": (((8, 3, 384, 384), 2048), ((3, 3, 384, 384), 768)),
    "video_llama_3": (((2912, 588), 728), ((2772, 588), 693)),
}
PROMPTS = {
    "llava_onevision": {"num_image_tokens": 729},
    "llava_next_video": {"patch_size": 14},
    "smolvlm": {"image_seq_len": 81},
    "internvl": {"image_seq_length": 256},
}


def pixels(made):
    (found,) = (tensor for name, tensor in made.tensors.items() if name.startswith("pixel_values"))
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_text_and_pixels_are_those_of_the_processor(name):
    made = preparation(name)(striped(5, 20, 30), TIMES)
    assert made.text == TEXTS[name]
    shape, some, mean = PIXELS[name]
    found = pixels(made)
    flat, n = found.flatten(), found.numel()
    assert found.shape == shape and found.dtype == torch.float32
    assert [float(flat[i]) for i in (0, n // 3, n // 2 + 5, n - 1)] == pytest.approx(some, abs=2e-2)
    assert float(flat.mean()) == pytest.approx(mean, abs=2e-3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_folder_that_says_nothing_is_taken_as_published(name):
    made = preparation(name, video={}, text=PROMPTS.get(name, {}))
    mark = made.image if name in ("smolvlm", "internvl") else made.video
    for size, (shape, cells) in zip(((8, 360, 640), (3, 1080, 607)), PUBLISHED[name], strict=True):
        found = made(striped(*size), [float(t) for t in range(size[0])])
        assert pixels(found).shape == shape and found.text.count(mark) == cells


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.parametrize("frames", [1, 2, 3, 33])
def test_any_number_of_frames_is_shown_whole(name, frames):
    times = [t / 2 for t in range(frames)]
    made = preparation(name)(striped(frames, 24, 10), times)
    pairs = name.startswith("qwen")
    shown = made.tensors.get("video_grid_thw")
    found = pixels(made)
    steps = int(shown[0, 0]) if shown is not None else found.shape[0 if name == "internvl" else 1]
    assert steps == (-(-frames // 2) if pairs else frames)
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_frames_that_come_in_parts_give_bit_for_bit_what_they_give_together(name):
    video, times = striped(7, 45, 34), [t / 2 for t in range(7)]
    whole = preparation(name)(video, times)
    for sizes in ([1] * 7, [3, 4], [5, 2]):
        made = preparation(name)(iter(video.split(sizes)), times)
        assert made.text == whole.text and made.tensors.keys() == whole.tensors.keys()
        assert all(torch.equal(made.tensors[key], whole.tensors[key]) for key in made.tensors)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_a_part_at_its_own_size_is_let_go_before_the_next_is_asked_for(name):
    held = []

    def part(first):
        assert not [seen for seen in held if seen() is not None]
        made = striped(first + 2, 45, 34)[first:].clone()
        held.append(weakref.ref(made))
        return made

    preparation(name)(map(part, (0, 2, 4)), [t / 2 for t in range(6)])
    assert len(held) == 3


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([striped(2, 20, 30)], "2 frames for 3 times"),
        ([striped(2, 20, 30), striped(2, 20, 30)], "4 frames for 3 times"),
        ([], "0 frames for 3 times"),
        ([striped(1, 20, 30), striped(2, 40, 30)], r"come out as \(3, 16, 32\) and \(3, 40, 32\)"),
    ],
)
def test_parts_that_are_not_one_video_of_so_many_times_are_refused(parts, says):
    with pytest.raises(UserError, match=says):
        preparation("qwen2_vl")(parts, [0.0, 1.0, 2.0])


def test_pairs_of_frames_are_told_apart_by_the_mean_of_their_steps():
    two_and_a_half = preparation("qwen2_5_vl")
    assert two_and_a_half(striped(5, 20, 30), TIMES).tensors["second_per_grid_ts"].tolist() == [30.25]
    assert two_and_a_half(striped(1, 20, 30), [7.0]).tensors["second_per_grid_ts"].tolist() == [2.0]
    assert "second_per_grid_ts" not in preparation("qwen2_vl")(striped(5, 20, 30), TIMES).tensors


def test_a_single_frame_of_qwen3_is_shown_as_a_pair():
    made = preparation("qwen3_vl")(striped(1, 20, 30), [4.0])
    assert made.tensors["video_grid_thw"].tolist() == [[1, 4, 8]] and made.text.startswith("<4.0 seconds>")


@pytest.mark.parametrize(("size", "first"), [((20, 30), (6, 8)), ((30, 20), (8, 6)), ((6, 90), (1, 8))])
def test_frames_of_smolvlm_come_by_way_of_their_longest_edge(size, first):
    # The shorter edge is rounded down, then made even: 5.3 is 5 and so 6; 0.5 is none and so 1.
    said = {"size": {"longest_edge": 8}, "max_image_size": {"longest_edge": 16}}
    made = preparation("smolvlm", video=said)(striped(2, *size), [0.0, 1.0])
    twice = resized(resized(striped(2, *size), *first, "lanczos"), 16, 16, "lanczos")
    assert torch.allclose(pixels(made)[0], twice / 127.5 - 1, atol=1e-5)


def test_every_cell_of_videollama3_is_kept():
    made = preparation(
        "video_llama_3",
        video={"use_token_compression": True, "patch_size": 4, "size": {"shortest_edge": 16, "longest_edge": 4096}},
    )(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), [0.0, 1.0, 2.0, 3.0])
    assert made.tensors["video_compression_mask"].tolist() == [True] * 16
    assert made.tensors["video_merge_sizes"].tolist() == [2]


def test_frames_of_videollama3_share_the_pixels_of_the_video():
    made = preparation("video_llama_3")
    grids = [made(striped(n, 64, 64), [float(t) for t in range(n)]).tensors["video_grid_thw"].tolist() for n in (1, 16)]
    assert grids == [[[1, 16, 16]], [[16, 4, 4]]], "4096 pixels for one, 256 for each of sixteen"


def test_pixels_are_bound_over_the_whole_video_where_the_folder_asks_for_it():
    frames, times = striped(8, 96, 96), [float(t) for t in range(8)]
    edges = {"size": {"shortest_edge": 64, "longest_edge": 9216}, "patch_size": 4, "cap_pixels_per_frame": True}
    two = preparation("qwen2_vl", video={**edges, "max_video_tokens": 100})
    assert two(frames, times).tensors["video_grid_thw"].tolist() == [[4, 8, 8]]  # 100 * 64 * .9 * 2 / 8 = 1440 pixels
    three = preparation("qwen3_vl", video={**edges, "max_video_tokens": 4})
    assert three(frames, times).tensors["video_grid_thw"].tolist() == [[4, 4, 4]]  # 4 cells of 64 pixels


def test_older_folders_call_the_edges_of_qwen2_by_other_names():
    said = {"patch_size": 4, "min_pixels": 64, "max_pixels": 256, "size": {"min_pixels": 64, "max_pixels": 256}}
    made = preparation("qwen2_vl", video=said)(striped(2, 96, 96), [0.0, 1.0])
    assert made.tensors["video_grid_thw"].tolist() == [[1, 4, 4]]


def test_videos_of_a_batch_stand_behind_one_another_and_smolvlm_fills_up_the_shorter_ones():
    for name in tiny.FAMILIES:
        made = preparation(name)
        parts = [made(striped(n, 20, 30), TIMES[:n]).tensors for n in (5, 5)]
        joined = made.joined(parts)
        assert all(torch.equal(joined[key], torch.cat([part[key] for part in parts])) for key in joined)
    made = preparation("smolvlm")
    short, long = ([made(striped(n, 20, 30), TIMES[:n]).tensors][0] for n in (2, 5))
    pixels = made.joined([short, long])["pixel_values"]
    assert pixels.shape[:2] == (2, 5) and not pixels[0, 2:].any() and torch.equal(pixels[:1, :2], short["pixel_values"])
    made = preparation("llava_onevision")
    with pytest.raises(UserError, match=r"pixel_values_videos of .*the same number of frames"):
        made.joined([made(striped(n, 20, 30), TIMES[:n]).tensors for n in (2, 5)])


@pytest.mark.parametrize(
    ("name", "video", "text", "says"),
    [
        ("qwen2_vl", {"patch_size": "4"}, {}, r"patch_size='4' .* a positive whole number"),
        ("qwen2_vl", {"size": {"height": 4}}, {}, "shortest_edge=None"),
        ("qwen3_vl", {"resample": 7}, {}, r"resample=7 .*2 \(bilinear\)"),
        ("video_llama_3", {"temporal_patch_size": 2}, {}, "temporal_patch_size=2"),
        ("llava_onevision", {"size": {"longest_edge": 5}}, {}, ".*edges height and width or edges shortest_edge"),
        ("llava_onevision", {}, {"num_image_tokens": 0}, "num_image_tokens=0"),
        ("llava_next_video", {"crop_size": {"height": 4}}, {}, "crop_size={'height': 4}"),
        ("smolvlm", {"max_image_size": {"width": 4}}, {}, "max_image_size={'width': 4}"),
    ],
)
def test_settings_that_cannot_be_used_name_themselves(name, video, text, says):
    with pytest.raises(UserError, match=rf"hf:tiny: {says}"):
        preparation(name, video=video, text=text)(striped(2, 20, 30), [0.0, 1.0])
