"""One shard: any media, any number of samples, the same bytes every time, and plain WebDataset reads it."""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest
import webdataset
from tests.data.conftest import make_sample

from vxl_lightning.data.files import sha256_of
from vxl_lightning.data.manifest import NAME, Manifest
from vxl_lightning.data.references import Reference
from vxl_lightning.data.schema import Sample, Turn
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.data.tars import PackedEntry, members_of, write_shard
from vxl_lightning.errors import UserError

BIG = 5 << 20  # more than a piece, and no multiple of a block
LONG = "k" * 160


@pytest.fixture
def media(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    (root / "frames").mkdir(parents=True)
    for number in (10, 2, 1):
        (root / "frames" / f"f{number}.JPG").write_bytes(b"frame %d" % number)
    (root / "frames" / "notes.txt").write_text("no image")
    (root / "long.MKV").write_bytes(bytes(range(256)) * (BIG // 256) + b"end")
    (root / "a.png").write_bytes(b"image")
    return root


def entries(media: Path) -> list[PackedEntry]:
    reference = Reference("deep/hour.mp4", "0" * 64, 7)
    return [
        PackedEntry("video", [make_sample(0)], {**members_of(media / "long.MKV"), "idx": b"where"}),
        PackedEntry(LONG, [make_sample(i) for i in range(1, 4)], members_of(media / "frames")),
        PackedEntry("image", [make_sample(4)], members_of(media / "a.png")),
        PackedEntry("hour", [make_sample(5)], {"ref.json": reference.to_bytes()}),
        PackedEntry("bytes", [make_sample(6)], {"mp4": b"x" * BIG}),
    ]


def dataset(root: Path, media: Path) -> Path:
    root.mkdir()
    shard = write_shard(root / "shard-000000.tar", entries(media))
    Manifest("video", None, (shard,)).save(root)
    return root


def test_webdataset_reads_them(tmp_path: Path, media: Path) -> None:
    root = dataset(tmp_path / "set", media)
    rows = list(webdataset.WebDataset([str(root / "shard-000000.tar")], shardshuffle=False))
    assert [r["__key__"] for r in rows] == ["video", LONG, "image", "hour", "bytes"]
    parts = [sorted(k for k in r if not k.startswith("__")) for r in rows]
    assert parts == [
        ["idx", "json", "mkv"],
        ["000000.jpg", "000001.jpg", "000002.jpg", "json"],
        ["json", "png"],
        ["json", "ref.json"],
        ["json", "mp4"],
    ]
    assert rows[0]["mkv"] == (media / "long.MKV").read_bytes() and rows[4]["mp4"] == b"x" * BIG
    assert [rows[1][f"{i:06d}.jpg"] for i in range(3)] == [b"frame 1", b"frame 2", b"frame 10"]
    assert [Sample.from_record(r, "x") for r in json.loads(rows[1]["json"])] == [make_sample(i) for i in (1, 2, 3)]


def test_offsets_hash_and_bytes(tmp_path: Path, media: Path) -> None:
    shard = write_shard(tmp_path / "shard-000000.tar", entries(media))
    again = write_shard(tmp_path / "shard-000001.tar", entries(media))
    content = (tmp_path / shard.name).read_bytes()
    assert (tmp_path / again.name).read_bytes() == content
    assert shard.sha256 == again.sha256 == hashlib.sha256(content).hexdigest()
    assert shard.size == len(content) and shard.size % tarfile.RECORDSIZE == 0
    with tarfile.open(tmp_path / shard.name) as tar:
        found = {m.name: (m.offset_data, m.size, m.mtime, m.uid) for m in tar}
    assert found == {f"{e.key}.{m}": (*place, 0, 0) for e in shard.entries for m, place in e.members.items()}
    assert list(found) == [f"{e.key}.{m}" for e in shard.entries for m in sorted(e.members)]


def test_reader_counts_samples_and_media(tmp_path: Path, media: Path) -> None:
    reader = ShardReader(dataset(tmp_path / "set", media))
    assert len(reader) == reader.manifest.num_samples == 7 and reader.num_media == reader.manifest.num_media == 5
    assert [reader.media_of(i) for i in range(7)] == [0, 1, 1, 1, 2, 3, 4]
    assert [list(reader.samples_of(n)) for n in range(5)] == [[0], [1, 2, 3], [4], [5], [6]]
    assert [reader.sample(i) for i in (6, 2, 3, 1, 0)] == [make_sample(i) for i in (6, 2, 3, 1, 0)]
    assert reader.key(2) == reader.key(3) == LONG and reader.where(4).endswith("shard-000000.tar: image")
    assert reader.find("hour") == 3
    with pytest.raises(KeyError):
        reader.find("minute")
    for index in (-1, 7):
        with pytest.raises(IndexError):
            reader.key(index)
    plain = json.loads((tmp_path / "set" / NAME).read_text())
    assert plain["num_samples"] == 7 and plain["num_media"] == 5 and plain["recipe"] is None
    assert plain["shards"] == [{"name": s.name, "sha256": s.sha256, "size": s.size} for s in reader.manifest.shards]


def test_an_entry_is_parsed_once_for_all_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [Sample(str(i), "v.mp4", (Turn("human", "?"), Turn("gpt", str(i)))) for i in range(300)]
    pair = [PackedEntry("a", many, {"mp4": b"x"}), PackedEntry("b", many[:2], {"mp4": b"y"})]
    Manifest("video", None, (write_shard(tmp_path / "shard-000000.tar", pair),)).save(tmp_path)
    reader = ShardReader(tmp_path)
    parsed: list[int] = []
    original = ShardReader._parse
    monkeypatch.setattr(ShardReader, "_parse", lambda self, n, w: (parsed.append(n), original(self, n, w))[1])
    assert [reader.sample(i).id for i in range(302)] == [*map(str, range(300)), "0", "1"]
    assert parsed == [0, 1]
    assert reader.video(299) == b"x" and reader.video(300) == b"y"


def test_a_recipe_and_its_tables_are_recorded(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "shard-000000.tar", [PackedEntry("a", [make_sample(0)], {"mp4": b"x"})])
    Manifest("video", None, (shard,), {"decisions.parquet": "0" * 64}, {"name": "all", "seed": 3}).save(tmp_path)
    manifest, _ = Manifest.load(tmp_path)
    assert manifest.recipe == {"name": "all", "seed": 3}
    assert sorted(manifest.tables) == ["decisions.parquet", "shards.parquet"]


def test_nothing_is_left_of_a_shard_that_fails(tmp_path: Path, media: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    good = entries(media)[:1]
    twice = [*good, entries(media)[1], *good]
    with pytest.raises(UserError, match=r"two entries have the key 'video'"):
        write_shard(out / "shard-000000.tar", twice)
    gone = PackedEntry("gone", [make_sample(0)], {"mp4": tmp_path / "gone.mp4"})
    with pytest.raises(UserError, match=r"gone.mp4: cannot be read \(No such file"):
        write_shard(out / "shard-000000.tar", [*good, gone])
    assert list(out.iterdir()) == []


def test_pieces_and_flushes_leave_the_bytes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vxl_lightning.data import tars

    entries = [PackedEntry(f"{i:03d}", [make_sample(i)], {"mp4": bytes([i]) * 3001}) for i in range(40)]
    whole = write_shard(tmp_path / "whole.tar", entries)
    monkeypatch.setattr(tars, "_PIECE", 1000)
    monkeypatch.setattr(tars, "_FLUSH", 2000)
    pieces = write_shard(tmp_path / "pieces.tar", entries)
    assert pieces.sha256 == whole.sha256 == sha256_of(tmp_path / "pieces.tar")


def test_a_disk_that_fails_while_it_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vxl_lightning.data import tars

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tars, "_FLUSH", 1000)
    monkeypatch.setattr(tars, "_FLUSHED", full)
    with pytest.raises(OSError, match="No space left"):
        write_shard(tmp_path / "a.tar", [PackedEntry("a", [make_sample(0)], {"mp4": bytes(5 << 20)})])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_shrinks_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vxl_lightning.data import tars

    (tmp_path / "v.mp4").write_bytes(b"12345")
    monkeypatch.setattr(tars, "_size", lambda path: 6)
    with pytest.raises(UserError, match="became shorter"):
        write_shard(tmp_path / "shard-000000.tar", [PackedEntry("a", [make_sample(0)], {"mp4": tmp_path / "v.mp4"})])
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize(
    ("members", "part"),
    [
        ({}, "no media"),
        ({"pkl": b""}, "'pkl' does not fit"),
        ({"mp4": b"", "webm": b""}, "'mp4' does not fit"),
        ({"mp4": b"", "ref.json": b""}, "does not fit"),
        ({"png": b"", "idx": b""}, "does not fit"),
        ({"000001.jpg": b""}, "'000001.jpg' does not fit"),
        ({"000000.jpg": b"", "000002.jpg": b""}, "'000002.jpg' does not fit"),
        ({"000000.pkl": b""}, "does not fit"),
        ({"safetensors": b""}, "does not fit"),
    ],
)
def test_members_that_do_not_fit_are_not_published(tmp_path: Path, members: dict[str, bytes], part: str) -> None:
    shard = write_shard(tmp_path / "shard-000000.tar", [PackedEntry("a", [make_sample(0)], members)])
    with pytest.raises(UserError, match=part):
        Manifest("video", None, (shard,)).save(tmp_path)
    assert not (tmp_path / NAME).exists()


def test_two_shards_may_not_share_a_key(tmp_path: Path) -> None:
    same = [PackedEntry("a", [make_sample(0)], {"mp4": b"x"})]
    shards = tuple(write_shard(tmp_path / f"shard-00000{i}.tar", same) for i in range(2))
    with pytest.raises(UserError, match=r"'a' of shard-000001.tar: another entry has that key"):
        Manifest("video", None, shards).save(tmp_path)


def test_what_is_no_media(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds 0"):
        members_of(tmp_path / "empty")
    with pytest.raises(UserError, match="not a media file by its suffix"):
        members_of(tmp_path / "a.txt")
