"""What an evaluation asks, and of whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from vxl_lightning.errors import UserError

KIND = "benchmarks"
Answering = Literal["generate", "likelihood"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
REFERENCE = "reference"
"""The row that all others are held against: the model as it is, in the same harness."""
NONE = "none"
"""As the name of a row's selector or cache: without the model's own."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedVariant:
    """One row: what is put into the model. What is not named stays as the model has it."""

    compressor: dict[str, Any] = field(default_factory=dict)
    """Compressor between vision and language, such as {name: dtd, retention: 0.25}."""
    selector: dict[str, Any] = field(default_factory=dict)
    """Selector in front of the language model, such as {name: similarity}; none takes the model's own out."""
    select: int = 0
    """Groups or tokens that the selector keeps."""
    cache: dict[str, Any] = field(default_factory=dict)
    """Cache compressor inside the language model; none takes the model's own out."""
    model: str = ""
    """Folder of another model for this row, such as one of another seed; its encoder must be the same."""

    def __post_init__(self) -> None:
        for kind in ("compressor", "selector", "cache"):
            if isinstance(spec := getattr(self, kind), str):
                spec = {"name": spec}
                object.__setattr__(self, kind, spec)
            if not isinstance(spec, Mapping) or (spec and "name" not in spec):
                raise UserError(f"{kind}={spec!r} must be a plugin's name, or {{name: ..., its parameters}}")
        if bool(self.selector.get("name") not in (None, NONE)) != bool(self.select):
            raise UserError(
                f"selector={self.selector.get('name')} and select={self.select}: give both, such as "
                "selector=similarity select=8"
            )


@dataclass(frozen=True, kw_only=True)
class AskingConfig:
    """Who is asked, and where the answers go: what evaluations of every kind have."""

    kind: str
    """Which kind of evaluation the file describes: ``benchmarks`` or ``needles``."""
    name: str
    """Title of the tables and the report."""
    out: str
    """Folder of the results."""
    model: str = ""
    """Folder of a model that ``vxl train`` or an ablation wrote; for benchmarks also ``hf:FOLDER``, a local Hugging
    Face video model."""
    variants: dict[str, Any] = field(default_factory=dict)
    """Row name -> what is put into the model (`EvaluatedVariant`), such as {selector: similarity, select: 8}. The row
    ``reference``, the model as it is, is always there."""
    max_new_tokens: int = 32
    """Longest reply."""
    precision: Precision = "auto"
    """Of weights and features: float32, bfloat16 or float16; ``auto`` is float32 for a model of ours, and as saved for
    ``hf:``. In half precision a long video takes half the memory."""
    cache: str = ""
    """Folder of answers, and of haystacks that are made, shared between evaluations; empty is ``<out>/cache``."""

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError(
                "model is empty; give model=FOLDER, such as model=runs/demo/ablation/models/..., or for benchmarks "
                "model=hf:FOLDER"
            )
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens={self.max_new_tokens} must be at least 1")
        if self.precision not in get_args(Precision):
            raise UserError(f"precision={self.precision!r} is not one of {', '.join(get_args(Precision))}")
        parse_rows(self.variants)  # before anything is read

    @property
    def rows(self) -> dict[str, EvaluatedVariant]:
        """All rows by name, the reference first.

        Raises:
            UserError: see `parse_rows`.
        """
        return parse_rows(self.variants)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(AskingConfig):
    """An evaluation on benchmarks from local copies."""

    kind: str = KIND
    name: str = "Evaluation"
    out: str = "runs/evaluation"
    benchmarks: list[Any] = field(default_factory=list)
    """Names, or {name: ..., **its parameters}."""
    data_root: str = ""
    """Folder that holds a folder of each benchmark, in its published layout; `vxl plugin show NAME` tells which."""
    fps: float = 1.0
    """Frames looked at each second of video."""
    max_frames: int = 64
    """Most frames looked at; longer videos are looked at more sparsely."""
    answering: Answering = "generate"
    """``generate`` a reply and parse it, as benchmarks are scored, or take the likeliest option (``likelihood``)."""
    limit: int = 0
    """Ask the first so many questions of each benchmark alone, and what only counts together with them (the other
    tries of a needle of VNBench); the table says so. 0 asks all."""
    allow_missing: bool = False
    """Go on where files are missing: their questions are listed and left out."""
    pictures: int = 24
    """Questions that went wrong in some row whose kept frames the report shows; 0 decodes none."""

    def __post_init__(self) -> None:
        if self.kind != KIND:
            raise UserError(f"kind={self.kind!r} in the file is neither {KIND!r} nor 'needles'; name one of them")
        super().__post_init__()
        if self.answering not in get_args(Answering):
            raise UserError(f"answering={self.answering!r} is not one of {', '.join(get_args(Answering))}")
        if self.fps <= 0 or self.max_frames < 1 or min(self.limit, self.pictures) < 0:
            raise UserError(
                f"fps={self.fps} must be above 0, max_frames={self.max_frames} at least 1, limit={self.limit} and "
                f"pictures={self.pictures} at least 0"
            )


def parse_rows(variants: Mapping[str, Any]) -> dict[str, EvaluatedVariant]:
    """Rows by name, the reference first.

    Raises:
        UserError: a variant that is no mapping, has an unknown key, or takes the name of the reference.
    """
    if REFERENCE in variants:
        raise UserError(
            f"variants.{REFERENCE}: this row is the model as it is, which all others are held against; give the "
            "variant another name"
        )
    known = EvaluatedVariant.__dataclass_fields__
    rows = {REFERENCE: EvaluatedVariant()}
    for name, values in variants.items():
        if values is not None and not isinstance(values, str | Mapping):
            raise UserError(
                f"variants.{name}={values!r} must be a compressor's name, or a mapping of {', '.join(known)}, such as "
                "{compressor: {name: dtd, retention: 0.25}}"
            )
        given: dict[str, Any] = {"compressor": values} if isinstance(values, str) else dict(values or {})
        if strange := sorted(set(given) - set(known)):
            raise UserError(f"variants.{name}: unknown key {strange[0]!r}; allowed: {', '.join(known)}")
        rows[str(name)] = EvaluatedVariant(**given)
    return rows
