"""From a configuration to rows, cells and steps, everything checked before anything is computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxl_lightning import registry
from vxl_lightning.ablation import identity
from vxl_lightning.ablation.cells import Step, unique
from vxl_lightning.ablation.config import UNCOMPRESSED, AblationConfig, Variant, parse_variants
from vxl_lightning.ablation.tables import BASELINES
from vxl_lightning.config import to_plain
from vxl_lightning.data.manifest import Manifest
from vxl_lightning.errors import UserError


@dataclass(frozen=True)
class Row:
    """A variant at a budget: one evaluation a seed, and one measurement of its costs.

    Attributes:
        compressor: full specification, retention included.
        tokens: what a video of full length becomes.
        evaluate: seed -> step.
        measure: the step that takes the time; on the first seed's model.
    """

    name: str
    retention: float
    variant: Variant
    compressor: dict[str, Any]
    tokens: int
    evaluate: dict[int, Step]
    measure: Step

    @property
    def role(self) -> str:
        return {UNCOMPRESSED: "uncompressed"}.get(self.name, "baseline" if self.name in BASELINES else "variant")


@dataclass(frozen=True)
class Places:
    """Where things lie that steps know by hash: datasets and the language model. Not part of any key."""

    data: Mapping[str, str]
    language_model: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """All that an ablation will do.

    Attributes:
        rows: in the order of the tables.
        places: what the steps read.
        data: role -> hash of the dataset's manifest.
        plugins: `registry.provenance` of all plugins used.
    """

    rows: list[Row]
    places: Places
    data: dict[str, str]
    plugins: list[dict[str, str]]

    @property
    def steps(self) -> list[Step]:
        """Every step but the measurements, each once, what is needed first."""
        return unique([s for row in self.rows for e in row.evaluate.values() for s in e.upstream()])

    @property
    def measurements(self) -> list[Step]:
        """The steps that take the time, each once."""
        return unique([row.measure for row in self.rows])


def make_plan(config: AblationConfig) -> Plan:
    """Check the whole ablation and lay out its steps.

    Raises:
        UserError: missing or mismatched data, an unknown plugin, a retention that a compressor cannot give, rows of one
            budget that differ in tokens.
    """
    data = _Data(config)
    variants = parse_variants(config.variants)
    maker = _Maker(config, data)
    rows = [maker.row(UNCOMPRESSED, variants[UNCOMPRESSED], 1.0)]
    rest = [(name, v) for name, v in variants.items() if name != UNCOMPRESSED]
    for name, variant in rest:
        if strange := [b for b in variant.budgets if b not in config.budgets]:
            raise UserError(f"variants.{name}.budgets: {strange[0]:.6g} is none of this ablation's {config.budgets}")
    rows += [
        maker.row(name, variant, budget)
        for budget in config.budgets
        for name, variant in rest
        if not variant.budgets or budget in variant.budgets
    ]
    _check_budgets(rows)
    used = {tuple(sorted(p.items())) for p in maker.provenance}
    plugins = sorted((dict(p) for p in used), key=lambda p: (p["kind"], p["name"]))
    places = Places(
        {digest: str(getattr(config.data, role)) for role, digest in data.hashes.items()},
        {maker.language: config.language_model},
    )
    return Plan(rows, places, data.hashes, plugins)


class _Data:
    """The datasets' manifests, checked against each other."""

    def __init__(self, config: AblationConfig) -> None:
        roles = ["train", "test", "pretrain", "pretrain_held_out", "test_videos"]
        for role in roles[:2]:
            if not getattr(config.data, role):
                raise UserError(f"data.{role} is missing; give the folder of its feature shards ('vxl data encode')")
        self.hashes: dict[str, str] = {}
        self.manifests: dict[str, Manifest] = {}
        for role in roles:
            if root := getattr(config.data, role):
                self.manifests[role], self.hashes[role] = Manifest.load(Path(root))
        for role, manifest in self.manifests.items():
            wanted = "video" if role == "test_videos" else "features"
            if manifest.kind != wanted:
                raise UserError(f"data.{role}={getattr(config.data, role)} holds {manifest.kind}, not {wanted}")
        encodings = {r: m.encoding for r, m in self.manifests.items() if m.encoding is not None}
        for role, encoding in encodings.items():
            if encoding.fingerprint != encodings["test"].fingerprint:
                raise UserError(
                    f"data.{role} and data.test come from different encoders (fingerprints {encoding.fingerprint} and "
                    f"{encodings['test'].fingerprint}); encode both with the same one"
                )
            for name in ("fps", "max_frames", "grid"):
                if getattr(encoding, name) != getattr(encodings["test"], name) and not role.startswith("pretrain"):
                    raise UserError(
                        f"data.{role} has {name}={getattr(encoding, name)} and data.test "
                        f"{getattr(encodings['test'], name)}; encode both alike"
                    )
        self.encoding = encodings["test"]
        samples = self.manifests["test"].num_samples
        if not 0 <= config.evaluate.picture < samples:
            raise UserError(f"evaluate.picture={config.evaluate.picture}: data.test has samples 0 to {samples - 1}")


class _Maker:
    """Makes the steps of rows; shared inputs are computed once."""

    def __init__(self, config: AblationConfig, data: _Data) -> None:
        from vxl_lightning.models.language import language_model_folder

        self.config = config
        self.data = data
        self.environment = identity.environment()
        self.language = identity.language_model(language_model_folder(config.language_model))
        self.provenance: list[dict[str, str]] = []
        warmup = {k: v for k, v in to_plain(config.warmup).items() if k not in ("compressor", "seed")}
        self.warmup = Step(
            "warmup",
            {
                "language_model": self.language,
                "compressor": self.plugin("compressor", config.warmup.compressor),
                "prompt": to_plain(config.prompt),
                "adapter": to_plain(config.adapter),
                "stages": warmup,
                "data": data.hashes["train"],
                "seed": config.warmup.seed,
                "environment": self.environment,
            },
            {},
        )

    def plugin(self, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        described = identity.plugin(kind, spec)
        self.provenance += list(_provenance(described))
        return described | {"name": spec["name"]}

    def row(self, name: str, variant: Variant, retention: float) -> Row:
        where = f"variants.{name}"
        spec = {**variant.compressor, "retention": retention}
        encoding = self.data.encoding
        height, width = encoding.grid
        compressor = registry.build("compressor", spec, dim=encoding.dim)
        tokens = compressor.num_tokens(encoding.max_frames, height, width)
        if variant.init != "none" and not compressor.trainable:
            raise UserError(f"{where}.init={variant.init}: {spec['name']} has nothing to train; set init: none")
        if variant.init != "none" and "pretrain" not in self.data.hashes:
            raise UserError(f"{where}.init={variant.init} needs data.pretrain, the feature shards to learn from")
        if bool(variant.selector) != bool(variant.select):
            raise UserError(f"{where}: a selector and select, what it may keep, go together; select={variant.select}")
        described = self.plugin("compressor", spec)
        tunes = {seed: self._tune(variant, described, seed) for seed in self.config.seeds}
        test = {"data": self.data.hashes["test"], "environment": self.environment}
        batch = {"batch_size": self.config.evaluate.batch_size}
        shown = {"sample": self.config.evaluate.picture, "videos": self.data.hashes.get("test_videos")}
        return Row(
            name=name,
            retention=retention,
            variant=variant,
            compressor=spec,
            tokens=tokens,
            evaluate={seed: Step("evaluate", test | batch, {"model": tune}) for seed, tune in tunes.items()},
            measure=Step("measure", test | shown, {"model": tunes[self.config.seeds[0]]}),
        )

    def _tune(self, variant: Variant, compressor: dict[str, Any], seed: int) -> Step:
        needs = {"warmup": self.warmup}
        if variant.init != "none":
            needs["compressor"] = self._pretrain(variant, compressor, seed)
        inputs = {
            "compressor": compressor,
            "selector": self.plugin("selector", variant.selector) if variant.selector else None,
            "select": variant.select,
            "cache": self.plugin("cache", variant.cache) if variant.cache else None,
            "stages": to_plain(self.config.tune) if variant.tune else {},
            "data": self.data.hashes["train"],
            "seed": seed,
            "environment": self.environment,
        }
        return Step("tune", inputs, needs)

    def _pretrain(self, variant: Variant, compressor: dict[str, Any], seed: int) -> Step:
        held_out = self.data.hashes.get("pretrain_held_out", self.data.hashes["test"])
        inputs = {
            "compressor": compressor,
            "masker": self.plugin("masker", variant.masker),
            "objective": {"reconstruct": "masked", "autoencode": "autoencode"}[variant.init],
            "settings": to_plain(self.config.pretrain),
            "data": self.data.hashes["pretrain"],
            "held_out": held_out,
            "seed": seed,
            "environment": self.environment,
        }
        return Step("pretrain", inputs, {})


def _provenance(described: dict[str, Any]) -> list[dict[str, str]]:
    return [described["provenance"], *(p for part in described["parts"] for p in _provenance(part))]


def _check_budgets(rows: list[Row]) -> None:
    """Rows of one budget must give equally many tokens, where they say how many."""
    from vxl_lightning.compressors.base import Compressor

    for row in rows:
        reference = next(r for r in rows if r.retention == row.retention)
        cls: type[Compressor] = registry.get("compressor", row.compressor["name"])
        if cls.budget == "exact" and row.tokens != reference.tokens:
            raise UserError(
                f"variants.{row.name} gives {row.tokens} tokens at retention {row.retention:.6g}, but "
                f"{reference.name!r} gives {reference.tokens}; rows of one budget must be equal: change its "
                "frames_per_group or the budget"
            )
