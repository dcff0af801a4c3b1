"""Entry points found, refused, explained: with distributions written as files on a path of their own."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vxl_lightning import registry
from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.compressors.pool import Pool
from vxl_lightning.errors import UserError

Install = Callable[..., None]

COMPRESSOR = """
from dataclasses import dataclass
from vxl_lightning.compressors.pool import Pool

class Mine(Pool):
    @dataclass(frozen=True, kw_only=True)
    class Config(Pool.Config):
        strength: float = 0.5
        mandatory: int
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Writes a distribution as ``pip`` would leave it: a ``.dist-info`` folder and a module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(registry.ALLOW_VARIABLE, raising=False)
    made: list[str] = []

    def write(
        name: str, entry: str, module: str = "", code: str = "", version: str = "1.0", group: str = "compressors"
    ) -> None:
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[vxl_lightning.{group}]\n{entry}\n")
        if module:
            (tmp_path / f"{module}.py").write_text(code)
            made.append(module)
        registry.clear()

    registry.clear()
    yield write
    for module in made:
        sys.modules.pop(module, None)
    registry.clear()


def error(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_builtins_come_through_entry_points() -> None:
    names = {p.name for p in registry.installed("compressor") if p.distribution == registry.OWN_DISTRIBUTION}
    assert {"none", "random", "uniform", "pool", "dts", "chain", "slow_fast", "tree"} <= names
    assert registry.get("compressor", "pool") is Pool


def test_a_cache_is_built_for_the_shape_of_a_language_model() -> None:
    shape = LanguageShape(layers=2, hidden=32, heads=4, kv_heads=2, head_dim=8)
    cache = registry.build("cache", {"name": "vst", "retention": 1 / 8}, shape=shape)
    assert cache.shape is shape and cache.config.retention == 1 / 8
    assert "0.25 and 0.333333" in error(lambda: registry.build("cache", {"name": "vst", "retention": 0.3}, shape=shape))


def test_nothing_is_imported_before_it_is_asked_for(install: Install) -> None:
    install("vxl-lazy", "lazy = vxl_lazy:Mine", "vxl_lazy", COMPRESSOR)
    assert "lazy" in {p.name for p in registry.installed("compressor")}
    assert "vxl_lazy" not in sys.modules
    assert registry.get("compressor", "lazy").__name__ == "Mine"
    assert "vxl_lazy" in sys.modules


def test_two_claims_to_one_name_are_refused_until_written_in_full(install: Install) -> None:
    install("vxl-one", "merge = vxl_one:Mine", "vxl_one", COMPRESSOR, version="1.2")
    install("vxl_two", "merge = vxl_two:Mine", "vxl_two", COMPRESSOR, version="3.4")
    message = error(lambda: registry.get("compressor", "merge"))
    assert "vxl-one:merge (vxl-one 1.2)" in message and "vxl_two:merge (vxl_two 3.4)" in message
    assert registry.get("compressor", "vxl-one:merge").__module__ == "vxl_one"
    assert registry.get("compressor", "vxl-two:merge").__module__ == "vxl_two", "distribution names are normalised"
    assert registry.provenance("compressor", "vxl_two:merge")["version"] == "3.4"


def test_one_name_in_two_kinds_is_no_conflict() -> None:
    assert registry.get("compressor", "uniform") is not registry.get("selector", "uniform")


def test_claiming_a_builtin_name_is_a_conflict_like_any_other(install: Install) -> None:
    install("vxl-thief", "pool = vxl_thief:Mine", "vxl_thief", COMPRESSOR)
    assert "vxl-thief:pool" in error(lambda: registry.get("compressor", "pool"))
    assert registry.get("compressor", "vxl-lightning:pool") is Pool


def test_the_first_copy_on_the_path_is_the_one(
    install: Install, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("vxl-twice", "twice = vxl_twice:Mine", "vxl_twice", COMPRESSOR, version="1.0")
    older = tmp_path_factory.mktemp("older") / "vxl_twice-0.9.dist-info"
    older.mkdir()
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: vxl-twice\nVersion: 0.9\n")
    (older / "entry_points.txt").write_text("[vxl_lightning.compressors]\ntwice = vxl_twice:Mine\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(older.parent)])
    registry.clear()
    assert registry.provenance("compressor", "twice")["version"] == "1.0"


def test_unknown_name_lists_suggests_and_explains(install: Install) -> None:
    install("vxl-bad", "sunk = vxl_bad:Mine", "vxl_bad", "import a_module_that_is_not_there")
    message = error(lambda: registry.get("compressor", "poll"))
    assert "no compressor 'poll' is installed (did you mean 'pool'?)" in message
    listed = message.split("; installed: ")[1].split(";")[0].split(", ")
    assert {"chain", "dts", "none", "pool", "random", "uniform"} <= set(listed)
    assert listed == sorted(listed, key=lambda name: name.split(":")[-1]), "by name, whichever distribution brought it"
    assert "installed but not usable: sunk of vxl-bad 1.0" in message and "a_module_that_is_not_there" in message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no licence key')", "RuntimeError: no licence key"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def Mine(): pass", "must be a class"),
        ("class Mine: pass", "does not extend vxl_lightning.compressors.base.Compressor"),
        ("from vxl_lightning.maskers.tube import TubeMasker as Mine", "does not extend"),
        ("from vxl_lightning.compressors.base import GroupCompressor as Mine", "does not define compress_groups"),
        (COMPRESSOR + "    api_version = '0'", "api_version='0' of the compressor contract; this installation has '1'"),
        (COMPRESSOR.replace("frozen=True, ", "").replace("(Pool.Config)", ""), "Config must be frozen"),
        (COMPRESSOR.replace("    @dataclass(frozen=True, kw_only=True)\n", ""), "Config must be a dataclass"),
        (COMPRESSOR.replace("mandatory: int", "name: str = ''"), "may not have a field 'name'"),
        (COMPRESSOR.replace("mandatory: int", "rng: complex = 0j"), "a field that a YAML file cannot hold"),
        ("Other = 1", "AttributeError"),
    ],
)
def test_broken_plugin_says_why_and_hides_nothing(install: Install, code: str, reason: str) -> None:
    install("vxl-broken", "broken = vxl_broken:Mine", "vxl_broken", code)
    message = error(lambda: registry.get("compressor", "broken"))
    assert message.startswith("compressor=broken from vxl-broken 1.0 cannot be used: ") and reason in message
    assert registry.get("compressor", "pool") is Pool
    errors = {p.name: p.error for p in registry.checked("compressor")}
    assert reason in (errors["broken"] or "") and errors["pool"] is None


def test_damaged_metadata_hides_nothing(install: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    info = tmp_path / "ruin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ruin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_bytes(b"[vxl_lightning.compressors]\n\xff = x:y\n")
    registry.clear()
    assert registry.get("compressor", "pool") is Pool
    assert "ruin" in caplog.text


def test_allow_list_decides_what_may_be_imported(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("vxl-one", "merge = vxl_one:Mine", "vxl_one", COMPRESSOR)
    install("vxl-two", "merge = vxl_two:Mine", "vxl_two", COMPRESSOR)
    monkeypatch.setenv(registry.ALLOW_VARIABLE, "something-else, VXL_One")
    assert registry.get("compressor", "merge").__module__ == "vxl_one", "what is not allowed is in nobody's way"
    assert registry.get("compressor", "pool") is Pool, "this project's own are always allowed"
    monkeypatch.setenv(registry.ALLOW_VARIABLE, "")
    assert "VXL_PLUGINS does not list" in error(lambda: registry.get("compressor", "merge"))
    assert "VXL_PLUGINS does not list" in error(lambda: registry.get("compressor", "vxl-two:merge"))
    assert {p.distribution for p in registry.installed() if p.error is None} == {registry.OWN_DISTRIBUTION}
    assert "vxl_two" not in sys.modules


def test_unknown_kind() -> None:
    assert "did you mean 'compressor'" in error(lambda: registry.get("compresor", "pool"))


def test_build_from_a_name_and_from_a_mapping() -> None:
    pool = registry.build("compressor", {"name": "pool", "retention": 0.25, "frames_per_group": 2}, dim=8)
    assert (pool.dim, pool.config) == (8, Pool.Config(retention=0.25, frames_per_group=2))
    assert registry.config("compressor", "pool") == (Pool, Pool.Config())


@pytest.mark.parametrize(
    ("parameters", "parts"),
    [
        (
            {"strenght": 1},
            ["no parameter 'strenght' (did you mean 'strength'?)", "allowed: retention, frames_per_group"],
        ),
        ({"mandatory": 1, "strength": "much"}, ["compressor.strength", "'much'", "Float"]),
        ({"mandatory": 1.5}, ["compressor.mandatory", "Integer"]),
        ({"mandatory": 1, "mode": "median"}, ["compressor.mode", "'median'", "'mean', 'max'"]),
        ({"mandatory": 1, "retention": 2}, ["compressor mine", "retention=2", "(0, 1]"]),
        ({}, ["needs compressor.mandatory="]),
    ],
)
def test_parameters_are_checked_against_the_config(
    install: Install, parameters: dict[str, object], parts: list[str]
) -> None:
    install("vxl-mine", "mine = vxl_mine:Mine", "vxl_mine", COMPRESSOR)
    message = error(lambda: registry.config("compressor", {"name": "mine", **parameters}))
    for part in parts:
        assert part in message


def test_spec_without_a_name() -> None:
    assert "compressor.name is missing; installed: " in error(lambda: registry.config("compressor", {"retention": 1}))


def test_provenance_is_what_a_manifest_needs(install: Install) -> None:
    install("vxl-mine", "mine = vxl_mine:Mine", "vxl_mine", COMPRESSOR, version="2.5")
    assert registry.provenance("compressor", "mine") == {
        "kind": "compressor",
        "name": "mine",
        "distribution": "vxl-mine",
        "version": "2.5",
        "class_path": "vxl_mine:Mine",
    }
    with pytest.raises(UserError):
        registry.provenance("compressor", "theirs")
