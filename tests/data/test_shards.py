"""Shards: same bytes every time, complete or absent, readable by WebDataset, and nothing foreign gets in."""

import hashlib
import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import webdataset
from tests.data.conftest import ENCODING, make_sample, write_features

from vxl_lightning.data.decoding import write_video
from vxl_lightning.data.manifest import NAME, TABLE, Manifest, safe_key
from vxl_lightning.data.packing import pack_videos
from vxl_lightning.data.schema import Sample, Turn, write_annotations
from vxl_lightning.data.shards import ShardReader, ShardWriter
from vxl_lightning.data.verify import verify
from vxl_lightning.errors import UserError


def digests(root: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.iterdir())}


def test_same_samples_same_bytes(features_dir: Path, tmp_path: Path) -> None:
    again = write_features(tmp_path / "again", 22)
    assert digests(again) == digests(features_dir)
    assert list(digests(again)) == [NAME, *(f"shard-{i:06d}.tar" for i in range(5)), TABLE]


def test_reader_gives_back_what_was_written(features_dir: Path) -> None:
    reader = ShardReader(features_dir)
    assert len(reader) == 22
    for i in (21, 0, 7):
        assert reader.sample(i) == make_sample(i) and reader.key(i) == f"clip-{i:03d}"
        features, times, importance = reader.features(i)
        assert features.shape == (2 + i % 3, 2, 2, 4) and features.dtype == torch.bfloat16
        assert times.tolist() == [k / 2 for k in range(2 + i % 3)] and importance is None
        assert abs(features.float().mean().item() - i) < 1.5
    with pytest.raises(IndexError):
        reader.sample(22)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.sample(3) == make_sample(3)


def test_importance_is_kept(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "set", "features", ENCODING) as writer:
        writer.add_features(make_sample(0), torch.zeros(3, 2, 2, 4), torch.arange(3.0), torch.full((3, 2, 2), 0.25))
    importance = ShardReader(tmp_path / "set").features(0)[2]
    assert importance is not None and importance.float().unique().tolist() == [0.25]


def test_webdataset_reads_them(features_dir: Path) -> None:
    urls = [str(p) for p in sorted(features_dir.glob("*.tar"))]
    rows = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [r["__key__"] for r in rows] == [f"clip-{i:03d}" for i in range(22)]
    assert [Sample.from_record(r, "test") for r in json.loads(rows[3]["json"])] == [make_sample(3)]
    assert torch.equal(
        safetensors.torch.load(rows[3]["safetensors"])["features"], ShardReader(features_dir).features(3)[0]
    )


def test_interrupted_writer_leaves_no_dataset(tmp_path: Path) -> None:
    root = tmp_path / "set"
    with pytest.raises(RuntimeError, match="power"), ShardWriter(root, "features", ENCODING, max_samples=2) as writer:
        for i in range(3):
            writer.add_features(make_sample(i), torch.zeros(1, 2, 2, 4), torch.zeros(1))
        raise RuntimeError("power")
    assert [p.name for p in root.iterdir()] == ["shard-000000.tar"]
    with pytest.raises(UserError, match="not a dataset"):
        ShardReader(root)
    (root / ".123.shard-000001.tar").write_bytes(b"torn")
    (root / "shard-000007.tar").write_bytes(b"left over")
    with ShardWriter(root, "features", ENCODING) as writer:
        writer.add_features(make_sample(0), torch.zeros(1, 2, 2, 4), torch.zeros(1))
    assert sorted(p.name for p in root.iterdir()) == [NAME, "shard-000000.tar", TABLE]


def test_writer_refuses(features_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="already holds a dataset"):
        ShardWriter(features_dir, "features", ENCODING)
    with pytest.raises(UserError, match="encoding"):
        ShardWriter(tmp_path / "a", "features")
    writer = ShardWriter(tmp_path / "b", "video")
    writer.add_video(make_sample(0), b"x")
    with pytest.raises(UserError, match="unique"):
        writer.add_video(make_sample(0), b"x")
    with pytest.raises(UserError, match="at least one"):
        ShardWriter(tmp_path / "c", "video").finish()


def test_ids_cannot_leave_the_shard(tmp_path: Path) -> None:
    for name in ("../../etc/passwd", "/abs", "a.b", "a b", "x" * 500, "ü", "-"):
        key = safe_key(name)
        assert key.replace("-", "").replace("_", "").isalnum() or name == "-"
        assert len(key) <= 160 and "." not in key and "/" not in key
    assert safe_key("a.b") != safe_key("a b")


def test_stale_features_are_named(features_dir: Path) -> None:
    reader = ShardReader(features_dir)
    reader.require(ENCODING.fingerprint)
    with pytest.raises(UserError, match=r"'toy'.*0123456789abcdef.*feedbeef.*vxl data encode"):
        reader.require("feedbeef")


def edited(root: Path, target: Path, **change: object) -> Path:
    """A copy of a dataset with fields of its manifest or of the first row of `shards.parquet` changed."""
    shutil.copytree(root, target)
    plain = json.loads((target / NAME).read_text())
    for name, value in change.items():
        place, field = name.split("__")
        if place == "row":
            rows = pq.read_table(target / TABLE).to_pylist()
            rows[0][field] = value
            pq.write_table(pa.Table.from_pylist(rows), target / TABLE)
            plain["tables"][TABLE] = hashlib.sha256((target / TABLE).read_bytes()).hexdigest()
        else:
            {"top": plain, "shard": plain["shards"][0]}[place][field] = value
    (target / NAME).write_text(json.dumps(plain))
    return target


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"shard__name": "../../shard-000000.tar"}, "leave its folder"),
        ({"shard__name": "shard-000009.tar"}, "no entry of 'shard-000009.tar'"),
        ({"row__key": "../evil"}, "'../evil'"),
        ({"row__key": "clip-001"}, "no json member"),
        ({"row__key": None}, "damaged"),
        ({"row__member": "pkl"}, "json"),
        ({"row__offset": 10**9}, "inside the shard"),
        ({"row__offset": -1}, "inside the shard"),
        ({"row__samples": 0}, "0 samples"),
        ({"row__samples": 2}, "list of the 2 records"),
        ({"row__shard": "shard-000007.tar"}, "no json member"),
        ({"shard__size": 1}, ""),
        ({"top__format": "vxl-shards/1"}, "'vxl-shards/1', this version reads 'vxl-shards/2'"),
        ({"top__kind": "pickle"}, "video, features"),
        ({"top__shards": 3}, "damaged"),
        ({"top__shards": []}, "no shards"),
        ({"top__tables": {}}, "damaged"),
        ({"top__tables": {"../x.parquet": "0", TABLE: "0"}}, "leave its folder"),
        ({"top__tables": {TABLE: "0" * 64}}, "not the one that dataset.json records"),
    ],
)
def test_tampered_manifests(features_dir: Path, tmp_path: Path, change: dict[str, object], part: str) -> None:
    root = edited(features_dir, tmp_path / "bad", **change)
    with pytest.raises(UserError) as error:
        ShardReader(root).sample(0)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_a_shard_that_is_not_listed(features_dir: Path, tmp_path: Path) -> None:
    listed = json.loads((features_dir / NAME).read_text())["shards"]
    root = edited(features_dir, tmp_path / "bad", top__shards=listed[1:])
    with pytest.raises(UserError, match=r"dataset.json: does not list 'shard-000000.tar'"):
        ShardReader(root)


def test_a_table_that_is_not_one(features_dir: Path, tmp_path: Path) -> None:
    root = edited(features_dir, tmp_path / "bad")
    (root / TABLE).write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"shards.parquet: missing or not the one"):
        ShardReader(root)
    plain = json.loads((root / NAME).read_text())
    plain["tables"][TABLE] = hashlib.sha256(b"no parquet").hexdigest()
    (root / NAME).write_text(json.dumps(plain))
    with pytest.raises(UserError, match=r"shards.parquet: damaged"):
        ShardReader(root)
    (root / TABLE).unlink()
    with pytest.raises(UserError, match=r"shards.parquet: missing"):
        ShardReader(root)


def test_verify(features_dir: Path, tmp_path: Path) -> None:
    assert [p for _, p in verify(features_dir)] == [None] * 5
    root = edited(features_dir, tmp_path / "copy")
    shard = root / "shard-000002.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(bytes(data))
    problems = dict(verify(root))
    assert problems.pop("shard-000002.tar", None) is not None
    assert set(problems.values()) == {None}
    shard.unlink()
    with pytest.raises(UserError, match=r"shard-000002.tar: missing"):
        list(verify(root))


def test_verify_names_a_member_that_is_not_in_the_manifest(features_dir: Path, tmp_path: Path) -> None:
    root = edited(features_dir, tmp_path / "copy")
    shard = root / "shard-000000.tar"
    with tarfile.open(shard, "a") as tar:
        tar.addfile(tarfile.TarInfo("../evil.pkl"), io.BytesIO())
    plain = json.loads((root / NAME).read_text())
    plain["shards"][0].update(size=shard.stat().st_size, sha256=hashlib.sha256(shard.read_bytes()).hexdigest())
    (root / NAME).write_text(json.dumps(plain))
    problem = dict(verify(root))["shard-000000.tar"]
    assert problem is not None and "../evil.pkl" in problem


def test_pack_videos(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    (videos / "deep").mkdir(parents=True)
    write_video(videos / "deep" / "a.mp4", torch.full((4, 3, 32, 32), 90, dtype=torch.uint8), 2.0)
    turns = (Turn("human", "<image>\nWhat?"), Turn("gpt", "Grey."))
    write_annotations(tmp_path / "a.jsonl", [Sample(str(i), "deep/a.mp4", turns) for i in range(3)])
    pack_videos(tmp_path / "a.jsonl", videos, tmp_path / "out")
    reader = ShardReader(tmp_path / "out")
    assert len(reader) == 3 and reader.video(1) == (videos / "deep" / "a.mp4").read_bytes()
    assert [p for _, p in verify(tmp_path / "out")] == [None]
    for bad, part in (("../a.jsonl", "leaves"), ("/etc/hostname", "leaves"), ("none.mp4", "no video file")):
        write_annotations(tmp_path / "b.jsonl", [Sample("x", bad, turns)])
        with pytest.raises(UserError, match=part):
            pack_videos(tmp_path / "b.jsonl", videos, tmp_path / f"bad-{part[:2]}-{len(bad)}")


def test_verify_decodes(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "set", "video") as writer:
        writer.add_video(make_sample(0), b"not a video")
    [(_, problem)] = list(verify(tmp_path / "set"))
    assert problem is not None and "clip-000" in problem and "cannot be decoded" in problem


def test_manifest_round_trip(features_dir: Path) -> None:
    manifest, digest = Manifest.load(features_dir)
    assert manifest.encoding == ENCODING and manifest.num_samples == 22
    assert digest == hashlib.sha256((features_dir / NAME).read_bytes()).hexdigest()
