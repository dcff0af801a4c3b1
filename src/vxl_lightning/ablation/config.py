"""What an ablation compares, and what all of its rows share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from vxl_lightning import registry
from vxl_lightning.ablation.tables import BASELINES
from vxl_lightning.config import component
from vxl_lightning.errors import UserError
from vxl_lightning.models.build import AdapterConfig
from vxl_lightning.models.prefix import PromptConfig
from vxl_lightning.models.recot import DecoderConfig, Fill, Target
from vxl_lightning.modules.optim import OptimConfig
from vxl_lightning.modules.tuning import TuningConfig

Init = Literal["none", "autoencode", "reconstruct"]
Engine = Literal["local", "ray"]
UNCOMPRESSED = "none"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table at each budget; everything it does not name is the same for all rows."""

    compressor: dict[str, Any]
    """The compressor; its retention is set by the budget."""
    init: Init = "none"
    """``none``, or pretrained by masked reconstruction (``reconstruct``) or without a mask (``autoencode``)."""
    masker: dict[str, Any] = field(default_factory=lambda: {"name": "semantic"})
    """What is hidden while it is pretrained."""
    selector: dict[str, Any] = field(default_factory=dict)
    """Selector in front of the language model; empty for none."""
    select: int = 0
    """Groups or tokens the selector may keep."""
    cache: dict[str, Any] = field(default_factory=dict)
    """What the language model keeps of its keys and values, with a retention of its own; empty keeps all."""
    budgets: list[float] = field(default_factory=list)
    """Of the ablation's budgets those that it is given, for methods that cannot meet them all; empty is all."""
    tune: bool = True
    """False evaluates the shared warm-up without tuning; the table says so."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Folders of shards: encoder features, all from the same encoder."""

    train: str = ""
    """Questions to tune on."""
    test: str = ""
    """Questions to evaluate on; every sample states ``task`` and ``choices`` for each of them."""
    pretrain: str = ""
    """Video to pretrain compressors on; needs no questions. Needed by variants with an ``init``."""
    pretrain_held_out: str = ""
    """Video from other sources, on which the reconstruction gain is measured; empty measures it on ``test``."""
    test_videos: str = ""
    """Video shards behind ``test``, with the same keys: for the report's pictures and the cost of decoding and
    encoding. Empty leaves these out."""


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Reconstructive pretraining, the same for every variant that asks for it."""

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """The decoder, which is thrown away afterwards."""
    target: Target = "features"
    """``features`` or ``layer_norm``: the space in which cells are compared."""
    fill: Fill = "previous"
    """``previous`` or ``embedding``: what hidden cells look like to the compressor."""
    visible_weight: float = 0.2
    """Weight of the visible cells' error beside the hidden cells'."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(steps=600, lr=2e-3))
    """Optimiser, schedule and number of steps."""
    batch_size: int = 16
    """Clips a step."""


@dataclass(frozen=True, kw_only=True)
class Stage(TuningConfig):
    """One stage of tuning, with its batches."""

    batch_size: int = 8
    """Clips a step; 0 leaves the stage out."""


def _align() -> Stage:
    return Stage(objective="align", batch_size=32, optim=OptimConfig(steps=100))


def _answer() -> Stage:
    return Stage(objective="answer", optim=OptimConfig(steps=40))


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """Tuning of every variant, from the shared warm-up on."""

    align: Stage = field(default_factory=_align)
    """First: projected tokens point at words, no language model in the loop."""
    answer: Stage = field(default_factory=_answer)
    """Then: questions are answered."""

    def __post_init__(self) -> None:
        for name in ("align", "answer"):
            objective = getattr(self, name).objective
            if objective != name:
                raise ValueError(f"{name}.objective={objective}: the stage's name says {name!r}; remove the key")


@dataclass(frozen=True, kw_only=True)
class WarmupSettings(TuneSettings):
    """What the language model and the projector learn once, for all variants and seeds."""

    compressor: dict[str, Any] = component("compressor", "none")
    """The compressor it is done with; its own weights are not kept."""
    answer: Stage = field(default_factory=lambda: replace(_answer(), from_words=4))
    """Then: questions are answered about videos told in words (`TuningConfig.from_words`)."""
    seed: int = 0
    """Seed of the warm-up; the ablation's seeds vary everything that follows."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How questions are put."""

    batch_size: int = 8
    """Clips answered at a time."""
    picture: int = 0
    """Which sample of ``test`` the report draws."""


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """An ablation: variants x budgets x seeds, all else equal."""

    name: str = "ablation"
    """Title of the tables and the report."""
    out: str = "runs/ablation"
    """Folder of the results."""
    cache: str = ""
    """Folder of finished steps, which ablations may share; empty is ``<out>/cache``."""
    variants: dict[str, Any] = field(default_factory=dict)
    """Name -> compressor, or a mapping of what `Variant` has. Rows ``none``, ``random`` and
    ``pool`` are added."""
    budgets: list[float] = field(default_factory=lambda: [1 / 16])
    """Retentions: fractions of grid cells that reach the language model."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Every variant is pretrained and tuned once for each."""
    data: DataSettings = field(default_factory=DataSettings)
    """Shards to learn from and to be asked about."""
    language_model: str = "smollm2"
    """A packaged model's name or the folder of a local transformers model."""
    prompt: PromptConfig = field(default_factory=PromptConfig)
    """How a video is laid out for the language model."""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    """LoRA on the frozen language model."""
    warmup: WarmupSettings = field(default_factory=WarmupSettings)
    """What is learnt once, before the variants part."""
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    """Pretraining of the compressors that ask for it."""
    tune: TuneSettings = field(default_factory=TuneSettings)
    """What every variant learns."""
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    """How questions are put."""
    engine: Engine = "local"
    """``local`` processes, or ``ray``: the same steps on a Ray cluster that shares the cache folder."""
    workers: int = 1
    """Steps at a time."""
    threads: int = 0
    """CPU threads of a step; 0 divides this machine's cores among the workers. Results repeat bit for bit only at an
    equal number of threads."""

    def __post_init__(self) -> None:
        if self.engine not in get_args(Engine):
            raise ValueError(f"engine={self.engine!r} is not one of {', '.join(get_args(Engine))}")
        if self.workers < 1 or self.threads < 0:
            raise ValueError(f"workers={self.workers} must be at least 1 and threads={self.threads} at least 0")
        for name in ("budgets", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name}={values} must be different values, at least one")
        for budget in self.budgets:
            if not 0 < budget < 1:
                raise ValueError(f"budgets={self.budgets}: {budget} is not in (0, 1); row 'none' already keeps all")
        if not self.variants:
            raise ValueError("variants is empty; name at least one, such as variants.dts=dts")


def parse_variants(variants: Mapping[str, Any]) -> dict[str, Variant]:
    """Check and complete the variants: the uncompressed row and the baselines come first, always.

    A user's variant replaces the automatic row of its name. Plugins' parameters are checked here; the retention
    is not yet set.

    Raises:
        UserError: an unknown key or plugin, a wrong value, a stated retention.
    """
    given = {name: _variant(name, spec) for name, spec in variants.items()}
    files: dict[str, str] = {}
    for name in given:  # models and pictures are filed under names without spaces
        other = files.setdefault(name.replace(" ", "-").replace("_", "-"), name)
        if other != name:
            raise UserError(f"variants {other!r} and {name!r} differ in spaces, '-' or '_' alone; rename one")
    automatic = {name: Variant(compressor={"name": name}) for name in (UNCOMPRESSED, *BASELINES)}
    for name in automatic:
        if name in given and given[name].compressor["name"] != name:
            raise UserError(
                f"variants.{name} has compressor={given[name].compressor['name']}, but {name!r} is the name of the "
                f"row that every ablation compares with; call the variant something else"
            )
    return automatic | given


def _variant(name: str, spec: Any) -> Variant:
    where = f"variants.{name}"
    if not name or not all(c.isalnum() or c in "_-+. " for c in name):
        raise UserError(f"{where}: a name may hold letters, digits, spaces and any of _ - + . alone")
    if isinstance(spec, str):
        spec = {"compressor": spec}
    if not isinstance(spec, Mapping):
        raise UserError(f"{where} must be a mapping such as {{compressor: dts, init: reconstruct}}, got {spec!r}")
    known = [f.name for f in fields(Variant)]
    for key in spec:
        if key not in known:
            raise UserError(
                f"{where}: unknown key {key!r}{registry.did_you_mean(str(key), known)}; allowed: {', '.join(known)}"
            )
    if "compressor" not in spec:
        raise UserError(f"{where} names no compressor; write compressor: dts, or one of 'vxl plugin list'")
    values: dict[str, Any] = dict(spec)
    for kind in ("compressor", "masker", "selector", "cache"):
        if kind in values:
            values[kind] = _component(where, kind, values[kind])
    if values.get("init", "none") not in get_args(Init):
        raise UserError(f"{where}.init={values['init']!r} is not one of {', '.join(get_args(Init))}")
    if not isinstance(values.get("tune", True), bool):
        raise UserError(f"{where}.tune={values['tune']!r} must be true or false")
    if "retention" in values["compressor"]:
        raise UserError(
            f"{where}.compressor.retention={values['compressor']['retention']}: the budget sets it; "
            "remove it and list it in budgets"
        )
    return Variant(**values)


def _component(where: str, kind: str, spec: Any) -> dict[str, Any]:
    if spec is None or spec == {}:
        return {}
    plain = {"name": spec} if isinstance(spec, str) else spec
    if not isinstance(plain, Mapping) or "name" not in plain:
        raise UserError(f"{where}.{kind}={spec!r} must be a plugin's name, or a mapping with one: {{name: ...}}")
    return dict(plain)
