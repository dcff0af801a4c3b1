"""The planted corpus: complete, true, unlike where it should be, the same bytes for the same seed."""

import contextlib
import hashlib
import itertools
import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vxl_lightning import config as configuration
from vxl_lightning.cli.main import main
from vxl_lightning.curation.contamination import qa_hash
from vxl_lightning.data.decoding import probe, stream_frames
from vxl_lightning.data.files import sha256_of
from vxl_lightning.data.schema import read_annotations
from vxl_lightning.data.synth.corpus.build import SOURCES, make_corpus, plan_corpus
from vxl_lightning.data.synth.corpus.clips import shared
from vxl_lightning.data.synth.corpus.config import CorpusConfig
from vxl_lightning.data.synth.corpus.damage import DAMAGES
from vxl_lightning.data.synth.corpus.malformed import FAULTS, FLAWS, NOT_JSON
from vxl_lightning.data.synth.corpus.truth import read_truth
from vxl_lightning.data.synth.footage import Footage
from vxl_lightning.errors import UserError

SMALL = CorpusConfig(
    clips=27, ordered=2, one_frame=2, static=2, exact_videos=4, reencoded=5, trimmed=2, exact_qa=3, blind=8,
    misaligned=4, contaminated=2, damaged=2, malformed=2, num_frames=16, size=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch_footage(patch)
        make_corpus(SMALL, out)
    return out


def patch_footage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Footage, "load", staticmethod(moving_footage))
    patch.setattr("vxl_lightning.data.synth.build.check_footage", lambda: 0)


def moving_footage(_: str) -> Footage:
    """Films and photographs of coarse noise: any two crops differ."""
    from vxl_lightning.data.synth.footage import Source

    def noise(frames: int, seed: int) -> torch.Tensor:
        coarse = torch.rand(frames, 3, 9, 12, generator=torch.Generator().manual_seed(seed)) * 200 + 20
        return torch.nn.functional.interpolate(coarse, (96, 128), mode="bilinear").byte()

    films = [(Source(f"film_{i}", "none", f"{i}.mp4", "train", "CC0"), noise(40, i)) for i in range(4)]
    photos = [(Source(f"photo_{i}", "none", f"{i}.jpg", "train", "CC0"), noise(1, 50 + i)) for i in range(12)]
    return Footage(films, photos)


def records(root: Path) -> dict[tuple[str, int], Any]:
    """Every record as written, by source and number; text where it is not JSON."""
    found: dict[tuple[str, int], Any] = {}
    for name in SOURCES:
        text = (root / "annotations" / name).read_text(encoding="utf-8")
        parts = json.loads(text) if name.endswith(".json") else text.splitlines()
        for number, part in enumerate(parts, 1):
            if isinstance(part, str) and name.endswith(".jsonl"):
                with contextlib.suppress(json.JSONDecodeError):
                    part = json.loads(part)
            found[f"annotations/{name}", number] = part
    return found


def planted(root: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_truth(root / "truth.jsonl") if line["planted"] == kind]


def test_truth_has_a_line_for_every_record_and_names_it(root: Path) -> None:
    written, told = records(root), read_truth(root / "truth.jsonl")
    assert [(line["source"], line["record_number"]) for line in told] == list(written)
    ids = Counter(line["id"] for line in told if line["id"])
    assert max(ids.values()) == 1
    for line in told:
        record = written[line["source"], line["record_number"]]
        if isinstance(record, dict) and isinstance(record.get("video"), str):
            assert (line["media"], line["id"]) == (record["video"], record.get("id"))
    mixture = yaml.safe_load((root / "mixture.yaml").read_text())["datasets"]
    assert [d["json_path"] for d in mixture] == [f"annotations/{name}" for name in SOURCES]


def test_every_kind_is_there_as_often_as_asked(root: Path) -> None:
    count = Counter(line["planted"] for line in read_truth(root / "truth.jsonl"))
    for kind in (*DAMAGES, *FAULTS, *FLAWS, NOT_JSON):
        assert count[kind] == 2, kind
    assert len(DAMAGES) >= 12 and len(FAULTS) >= 12
    assert count["blind"] == 8 and count["misaligned"] == 4 and count["exact_qa"] == 3
    assert count["exact_video_same_qa"] == count["exact_video_other_qa"] == 4
    assert count["reencoded"] >= 5 and count["trimmed"] >= 2 and count["static"] == 4 and count["one_frame"] == 4
    assert count["contaminated_id"] == count["contaminated_question"] == count["contaminated_benchmark"] == 2
    assert min(count[k] for k in ("contaminated_path", "contaminated_video", "ordered", "timed")) >= 2
    for kind in FAULTS:  # both readers meet every fault
        assert len({line["source"] for line in planted(root, kind)}) == 2, kind


def test_media_truth_covers_the_folder(root: Path) -> None:
    told = {line["media"]: line for line in read_truth(root / "media_truth.jsonl")}
    there = {str(p.relative_to(root / "media")) for p in (root / "media").rglob("*") if not p.is_dir()}
    folders = {m for m, line in told.items() if line["planted"] == "directory"}
    missing = {m for m, line in told.items() if line["planted"] == "missing"}
    assert there | folders | missing == set(told)
    assert all(not (root / "media" / m).exists() for m in missing)
    assert all((root / "media" / m).is_dir() for m in folders)
    for media, line in told.items():
        if line["expected"] in ("keep", "flag"):
            assert probe(root / "media" / media).num_frames == SMALL.num_frames
    link = root / "media" / "links" / "linked.mp4"
    assert link.resolve() == (root / "secret.mp4").resolve() and probe(root / "secret.mp4").num_frames == 16


def test_copies_are_what_truth_says(root: Path) -> None:
    media = root / "media"
    copies = [line for line in read_truth(root / "media_truth.jsonl") if line["twin"]]
    assert Counter(line["planted"] for line in copies) == {"exact_video": 4, "reencoded": 5, "trimmed": 2}
    for line in copies:
        copy, twin = media / line["media"], media / line["twin"]
        if line["planted"] == "exact_video":
            assert sha256_of(copy) == sha256_of(twin)
        else:
            assert sha256_of(copy) != sha256_of(twin) and probe(copy).duration < probe(twin).duration
    assert {Path(line["media"]).suffix for line in copies} == {".mp4", ".mkv", ".avi", ".webm"}
    written = {r["id"]: r for r in records(root).values() if isinstance(r, dict) and r.get("id")}
    for line in (*planted(root, "exact_video_same_qa"), *planted(root, "exact_qa")):
        copy, twin = written[line["id"]], written[line["twin"]]
        assert copy["conversations"] == twin["conversations"]
        assert sha256_of(media / copy["video"]) == sha256_of(media / twin["video"])
    for line in planted(root, "exact_video_other_qa"):
        asked = written[line["id"]]["conversations"]
        others = [r for r in written.values() if r.get("video") == line["twin"]]
        assert others and all(r.get("conversations") != asked for r in others)


def looks(path: Path) -> torch.Tensor:
    frames = torch.cat([f for f, _ in stream_frames(path, [i / 4 for i in range(16)], (16, 16))]).float().mean(1)
    flat = frames.flatten(1) - frames.flatten(1).mean(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True)


def test_only_planted_twins_are_alike_and_static_clips_stand_still(root: Path) -> None:
    told = read_truth(root / "media_truth.jsonl")
    whole = [line["media"] for line in told if line["planted"] in ("clean", "static", "odd_pixels")]
    seen = [looks(root / "media" / m) for m in whole]
    assert len(seen) > 30
    assert all(shared(a, b[None]) < 0.5 for a, b in itertools.combinations(seen, 2))
    for media, look in zip(whole, seen, strict=True):
        still = float((look[1:] * look[:-1]).sum(1).min()) > 0.999
        assert still == media.startswith("static/"), media


def test_contaminated_records_are_in_the_lists(root: Path) -> None:
    lists = {n: (root / "exclude" / f"{n}.txt").read_text().split() for n in ("ids", "video_hashes", "qa_hashes")}
    for line in planted(root, "contaminated_path"):
        assert {line["media"], Path(line["media"]).stem} & set(lists["ids"])
    for line in planted(root, "contaminated_video"):
        assert sha256_of(root / "media" / line["media"]) in lists["video_hashes"]
    assert {line["id"] for line in planted(root, "contaminated_id")} <= set(lists["ids"])
    benchmark = set()
    for sample in read_annotations(root / "exclude" / "benchmark.json"):
        turns = [t.text for t in sample.conversations]
        benchmark |= {qa_hash(q, a) for q, a in zip(turns[::2], turns[1::2], strict=True)}
    hit = {kind: 0 for kind in ("contaminated_question", "contaminated_benchmark")}
    written = records(root)
    for line in read_truth(root / "truth.jsonl"):
        record = written[line["source"], line["record_number"]]
        if line["expected"] == "quarantine":
            continue
        digest = qa_hash(*(turn["value"] for turn in record["conversations"]))
        kind = {True: "contaminated_question"}.get(digest in lists["qa_hashes"])
        kind = kind or {True: "contaminated_benchmark"}.get(digest in benchmark)
        if kind:
            hit[kind] += 1
            assert line["planted"] == kind  # no other record says the same by chance
    assert hit == {"contaminated_question": 2, "contaminated_benchmark": 2}


def test_qa_hash_is_the_documented_digest() -> None:
    assert qa_hash("<image>\nWhat  IS it?", " A Star\n") == hashlib.sha256(b"what is it?\na star").hexdigest()
    assert qa_hash("<video>Straße", "x") == qa_hash("STRASSE", "X") != qa_hash("strase", "x")


def test_misaligned_answers_contradict_the_video_and_others_do_not(root: Path) -> None:
    from vxl_lightning.data.synth.corpus.misaligned import answer_of
    from vxl_lightning.data.synth.questions import Needle, Question

    written = records(root)
    shown: dict[str, tuple[Needle, ...]] = {}

    def parts(line: dict[str, Any]) -> tuple[Question, tuple[Needle, ...]]:
        record = written[line["source"], line["record_number"]]
        asked, answer = (turn["value"] for turn in record["conversations"])
        needles = tuple(Needle(**{k: v for k, v in n.items() if k != "held_out"}) for n in record["needles"])
        text = asked.removeprefix("<image>\n")
        return Question(record["task"][0], text, answer, tuple(record["choices"][0]), None), needles

    for line in planted(root, "clean"):
        question, needles = parts(line)
        shown[line["media"]] = needles
        assert question.answer in question.choices
        assert answer_of(question, needles) in (None, question.answer)
    wrong = [
        parts(line)[0].answer != answer_of(parts(line)[0], shown[line["media"]]) for line in planted(root, "misaligned")
    ]
    assert wrong == [True] * 4


def test_needles_of_one_frame_clips_are_on_every_frame(root: Path) -> None:
    written = records(root)
    for line in planted(root, "one_frame"):
        (needle, *more) = written[line["source"], line["record_number"]]["needles"]
        assert [n["time"] for n in more] == [1.0, 2.0, 3.0]
        times = [i / 4 for i in range(16)]
        frames = torch.cat([f for f, _ in stream_frames(root / "media" / line["media"], times)]).float()
        y, x = int(needle["y"] * 64), int(needle["x"] * 64)
        spot = frames[:, :, y - 1 : y + 2, x - 1 : x + 2].mean((2, 3))
        if needle["shape"] != "ring":
            assert float((spot - spot.mean(0)).abs().max()) < 25


def test_uneven_frames_are_where_their_needles_say(root: Path) -> None:
    written = records(root)
    for line in planted(root, "variable_rate"):
        info = probe(root / "media" / line["media"])
        record = written[line["source"], line["record_number"]]
        times = [n["time"] for n in record["needles"]]
        assert "when" not in record["task"] and all(0 <= t < info.duration for t in times)
        if times:
            began = torch.cat([t for _, t in stream_frames(root / "media" / line["media"], times)])
            assert torch.allclose(began, torch.tensor(times), atol=2e-3)


def test_same_seed_same_bytes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_footage(monkeypatch)
    ticks: list[tuple[int, int]] = []
    settings = vars(SMALL)
    make_corpus(CorpusConfig(**{**settings, "workers": 1}), tmp_path / "again", lambda *t: ticks.append(t))
    assert contents(tmp_path / "again") == contents(root)
    assert [d for d, _ in ticks] == list(range(1, len(ticks) + 1)) and ticks[-1][0] == ticks[-1][1]
    make_corpus(CorpusConfig(**{**settings, "seed": 1}), tmp_path / "other")
    assert contents(tmp_path / "other") != contents(root)


def contents(root: Path) -> dict[str, str]:
    def of(path: Path) -> str:
        if path.is_symlink():
            return f"-> {path.readlink()}"
        mode = path.stat().st_mode
        return sha256_of(path) if stat.S_ISREG(mode) else str(stat.S_IFMT(mode))

    return {str(p.relative_to(root)): of(p) for p in sorted(root.rglob("*"))}


def test_nothing_but_a_corpus_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_footage(monkeypatch)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(UserError, match="is not empty; name another folder"):
        make_corpus(SMALL, tmp_path / "mine")
    with pytest.raises(UserError, match="blind=999: there are"):
        make_corpus(
            configuration.load(CorpusConfig, [], ["blind=999", "clips=2", "num_frames=16", "size=64", *NONE]),
            tmp_path / "x",
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]
    assert "files" in plan_corpus(SMALL, tmp_path / "x")[tmp_path / "x" / "media"]


NONE = [f"{name}=0" for name in ("ordered", "one_frame", "static", "exact_videos", "reencoded", "trimmed", "exact_qa",
        "misaligned", "contaminated", "damaged", "malformed")]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"clips": 9}, "clips=9: 32 copies are of clips of their own, of which 8 can be copied"),
        ({"blind": -1}, "blind=-1 must be at least 0"),
        ({"size": 31}, "size=31"),
        ({"num_frames": 30}, "num_frames=30"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CorpusConfig(**settings)


def test_footage_that_gives_too_little_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_footage(monkeypatch)
    source, frames = moving_footage("").films[0]
    flat = [(source, torch.full_like(frames, 90))]
    monkeypatch.setattr(Footage, "load", staticmethod(lambda _: Footage(flat, [])))
    with pytest.raises(UserError, match=r"clip-00\d\d: the footage gives no more clips that are unlike"):
        make_corpus(SMALL, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_command_shows_and_plans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_footage(monkeypatch)
    command = ["data", "synth", "corpus", str(tmp_path / "out"), "blind=3", "clips=40"]
    assert main([*command, "--print-config"]) == 0
    assert "blind: 3" in capsys.readouterr().out
    assert main([*command, "--dry-run"]) == 0
    assert "145 files, most of them clips of 32 frames, 128 px" in " ".join(capsys.readouterr().out.split())
    assert main([*command, "reencoded=99"]) == 2
    assert "clips=40: 121 copies" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
