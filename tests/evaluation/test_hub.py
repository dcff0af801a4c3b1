"""Rows of an evaluation on a local Hugging Face video model: shared weights, shared frames, each its own replies."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from tests.hub import tiny_processors

from vxl_lightning.cli.main import main
from vxl_lightning.data.decoding import write_video
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation import hub
from vxl_lightning.evaluation.answerer import Asked, Shown
from vxl_lightning.evaluation.benchmarks.vnbench import VNBench
from vxl_lightning.evaluation.config import EvaluatedVariant
from vxl_lightning.evaluation.models import answerers

ROWS = {
    "reference": EvaluatedVariant(),
    "half": EvaluatedVariant(compressor={"name": "uniform", "retention": 0.5}),
    "two": EvaluatedVariant(selector={"name": "similarity"}, select=2),
}
ASKED = [Asked("which shape ?", ("disk", "ring")), Asked("what colour ?", max_new_tokens=2)]


def video(path, seed):
    frames = torch.randint(0, 256, (6, 3, 32, 48), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, 2.0)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_processors.folder("qwen2_5_vl", tmp_path_factory.mktemp("hub") / "model")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return Shown(video(tmp_path_factory.mktemp("video") / "a.mp4", 0), (0.25, 0.75, 1.25, 1.75, 2.25, 2.75))


@pytest.fixture
def rows(folder):
    return answerers(f"hf:{folder}", ROWS, max_new_tokens=3, device="cpu")


def test_every_row_sees_the_tokens_that_it_keeps(rows, shown):
    replies = {name: list(row.replies(shown, ASKED)) for name, row in rows.items()}
    cells = {name: [reply.counts["visual_tokens"] for reply in listed] for name, listed in replies.items()}
    # 6 frames of 32 x 48 pixels are 3 pairs of 4 x 6 cells; half of 3 is 2, and so many may the selector keep.
    assert cells == {"reference": [72, 72], "half": [48, 48], "two": [48, 48]}
    for listed in replies.values():
        assert set(listed[0].scores) == {"disk", "ring"} and listed[0].text in listed[0].scores
        assert listed[1].scores == {} and listed[0].milliseconds["decode"] > 0
        assert set(listed[0].kept) <= {0.25, 1.25, 2.25}, "the first frame of a pair stands for both"
    assert list(replies["reference"][0].kept) == [0.25, 1.25, 2.25]


def test_the_row_as_it_is_answers_as_the_model_alone_does(rows, folder, shown):
    model = hub.load_hub(folder)
    frames, _ = hub.Frames().of(shown)
    alone = model.answer(frames, torch.tensor(shown.times), "which shape ?", ["disk", "ring"])
    (reply,) = rows["reference"].replies(shown, ASKED[:1])
    assert reply.scores == pytest.approx(alone.scores, abs=1e-5) and reply.text == alone.text


def test_rows_share_weights_and_a_video_is_decoded_once_for_all_of_them(rows, shown, monkeypatch, tmp_path):
    decoded = []

    def note(path, times, stream=hub.stream_frames):
        decoded.append(path)
        return stream(path, times)

    monkeypatch.setattr(hub, "stream_frames", note)
    other = Shown(video(tmp_path / "b.mp4", 1), shown.times)
    for look in (shown, other):
        for row in rows.values():
            list(row.replies(look, ASKED))
    assert decoded == [shown.path, other.path]
    list(rows["half"].replies(Shown(other.path, other.times[:3]), ASKED[:1]))
    assert len(decoded) == 3, "other frames of the same video are others"
    models = [row.model.model for row in rows.values()]
    assert all(model is models[0] for model in models)


def test_an_identity_changes_with_the_row_the_folder_the_length_of_replies_and_precision_alone(rows, folder, tmp_path):
    told = {name: json.dumps(row.identity, sort_keys=True) for name, row in rows.items()}
    assert len(set(told.values())) == len(told)
    again = answerers(f"hf:{folder}", ROWS, max_new_tokens=3, device="cpu")
    assert {name: json.dumps(row.identity, sort_keys=True) for name, row in again.items()} == told
    longer = answerers(f"hf:{folder}", ROWS, max_new_tokens=4, device="cpu")
    assert all(json.dumps(row.identity, sort_keys=True) != told[name] for name, row in longer.items())
    changed = tiny_processors.folder("qwen2_5_vl", tmp_path)
    said = json.loads((changed / "processor_config.json").read_text())
    said["video_processor"]["size"]["longest_edge"] = 2048
    (changed / "processor_config.json").write_text(json.dumps(said))
    other = answerers(f"hf:{changed}", ROWS, max_new_tokens=3, device="cpu")
    assert json.dumps(other["half"].identity, sort_keys=True) != told["half"], "frames would be smaller"
    rounded = answerers(f"hf:{folder}", ROWS, max_new_tokens=3, device="cpu", precision="bfloat16")
    assert rounded["half"].model.model.dtype == torch.bfloat16
    assert json.dumps(rounded["half"].identity, sort_keys=True) != told["half"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"compressor": "dts"}, r"variants\.learned: compressor=dts has to be trained"),
        ({"selector": "query_aware", "select": 1}, r"variants\.learned: selector=query_aware has to be trained"),
        ({"cache": "vst"}, r"variants\.learned: cache=vst has to be trained"),
        ({"compressor": "nothing_like_it"}, "nothing_like_it"),
    ],
)
def test_what_would_have_to_be_trained_is_refused(folder, row, says):
    with pytest.raises(UserError, match=says):
        answerers(f"hf:{folder}", {"learned": EvaluatedVariant(**row)}, max_new_tokens=3, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    folder = root / VNBench.folder_name
    folder.mkdir()
    VNBench.miniature(folder)
    benchmark = VNBench(VNBench.Config(), folder)
    for i, problem in enumerate(benchmark.missing(benchmark.read().questions)):
        video(folder / problem.where, i)
    return root


@pytest.mark.parametrize("answering", ["generate", "likelihood"])
def test_vxl_eval_asks_a_folder_from_beginning_to_end(folder, data, answering, tmp_path, capsys):
    (tmp_path / "eval.yaml").write_text(f"benchmarks: [vnbench]\nanswering: {answering}\nmax_frames: 4\nfps: 2\n")
    rows = "variants={half: {compressor: {name: uniform, retention: 0.5}}, two: {selector: similarity, select: 2}}"
    command = ["eval", str(tmp_path / "eval.yaml"), f"model=hf:{folder}", f"out={tmp_path / 'out'}", rows]
    assert main([*command, "max_new_tokens=2", "--data-root", str(data)]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("reference", "half", "two"))
    asked = pq.read_table(tmp_path / "out" / "questions.parquet").to_pylist()
    assert {r["row"] for r in asked} == {"reference", "half", "two"} and len(asked) == 3 * 12
    tokens = {r["row"]: r["visual_tokens"] for r in asked}
    assert tokens["half"] < tokens["reference"]
    before = (tmp_path / "out" / "table.md").read_bytes()
    assert main([*command, "max_new_tokens=2", "--data-root", str(data)]) == 0
    assert "\n0 replies asked" in capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_bytes() == before
