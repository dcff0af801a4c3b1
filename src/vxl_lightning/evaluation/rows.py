"""Reading annotation files: every error names the file and the row, and a bad row never ends a run.

A file becomes `Row` objects through `read_files`. `listing` makes questions of them: what a `Row` refuses (a field that
is missing or of a wrong type) becomes a `Problem`, and so do two rows with one id.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
import pyarrow.parquet

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Listing, Problem, Question

__all__ = ["Row", "RowError", "as_json", "choose_layout", "listing", "read_files"]

LONG = 80
"""Characters of a wrong value that an error shows."""


class RowError(ValueError):
    """Why a row cannot be used: the field, its value, and what is allowed."""


@dataclass(frozen=True)
class Unreadable:
    """What stands in for a line that is not JSON."""

    reason: str


def shown(value: Any) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= LONG else text[: LONG - 1] + "…"


@dataclass(frozen=True)
class Row:
    """One row of an annotation file; its methods give fields that are checked, or raise `RowError`.

    Attributes:
        where: file and row, such as ``lvb_val.json[17]``.
        value: what is written there; mostly a mapping.
        key: index of the row in a list, or its key in a mapping, as text.
    """

    where: str
    value: Any
    key: str = ""

    def __contains__(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return isinstance(self.value, Mapping) and self.value.get(name) is not None

    def field(self, name: str) -> Any:
        """A field of any type."""
        if isinstance(self.value, Unreadable):
            raise RowError(self.value.reason)
        if not isinstance(self.value, Mapping):
            raise RowError(f"must be an object with the field {name}, not {shown(self.value)}")
        if name not in self.value:
            raise RowError(f"{name}: missing; the row has {', '.join(map(str, self.value)) or 'no fields'}")
        return self.value[name]

    def text(self, name: str, *, empty: bool = False) -> str:
        """A text; blank only where ``empty`` allows it."""
        return checked_text(name, self.field(name), empty=empty)

    def word(self, name: str) -> str:
        """A text or a whole number, as text: ids are published as both."""
        value = self.field(name)
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else checked_text(name, value)

    def number(self, name: str) -> float:
        """A finite number; a text that is one counts, for csv."""
        value = self.field(name)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise RowError(f"{name}: must be a number, not {shown(value)}")
        return number

    def index(self, name: str, length: int) -> int:
        """A whole number from 0 to ``length - 1``."""
        value = self.field(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < length:
            raise RowError(f"{name}: must be a whole number from 0 to {length - 1}, not {shown(value)}")
        return value

    def texts(self, name: str, *, least: int = 0, most: int = 26, empty: bool = False) -> tuple[str, ...]:
        """A list of texts, none of them blank unless ``empty`` allows it."""
        value = self.field(name)
        if not isinstance(value, list | tuple) or not least <= len(value) <= most:
            raise RowError(f"{name}: must be a list of {least} to {most} texts, not {shown(value)}")
        return tuple(checked_text(f"{name}[{i}]", v, empty=empty) for i, v in enumerate(value))

    def words(self, name: str, *, least: int = 0, most: int = 26) -> tuple[str, ...]:
        """A list of texts or whole numbers, as texts: options that are counts are published as both."""
        value = self.field(name)
        texts = [str(v) if type(v) is int else v for v in value] if isinstance(value, list | tuple) else value
        return Row(self.where, {name: texts}).texts(name, least=least, most=most)

    def one_of(self, name: str, allowed: Sequence[str]) -> str:
        """A text that is one of those allowed."""
        value = self.field(name)
        if not isinstance(value, str) or value not in allowed:
            raise RowError(f"{name}: must be one of {', '.join(allowed)}, not {shown(value)}")
        return value

    def path(self, name: str) -> str:
        """A relative path that stays below its folder, with forward slashes."""
        text = self.text(name).replace("\\", "/").removeprefix("./")
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts or "\x00" in text:
            raise RowError(f"{name}: must be a path below the benchmark's folder, not {shown(text)}")
        return text

    def rows(self, name: str) -> list["Row"]:
        """The rows of a list within this row."""
        value = self.field(name)
        if not isinstance(value, list | tuple):
            raise RowError(f"{name}: must be a list, not {shown(value)}")
        return [Row(f"{self.where}.{name}[{i}]", v, str(i)) for i, v in enumerate(value)]


def checked_text(name: str, value: Any, *, empty: bool = False) -> str:
    """``value`` if it is a text that can be written; ``name`` is for the error."""
    if not isinstance(value, str):
        raise RowError(f"{name}: must be a text, not {shown(value)}")
    if not empty and not value.strip():
        raise RowError(f"{name}: must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can hold it, no file can
        raise RowError(f"{name}: has a character that is not unicode in {value.encode(errors='replace')!r}") from None
    return value


def listing(rows: Iterable[Row], make: Callable[[Row], Question | None], problems: Sequence[Problem] = ()) -> Listing:
    """The questions that ``make`` makes of rows, and as problems the rows that it refuses and ids that come twice.

    Args:
        rows: in published order.
        make: raises `RowError` for a row that cannot be used; None for one that is no question of this benchmark.
        problems: found before.
    """
    questions: dict[str, Question] = {}
    first: dict[str, str] = {}
    found = list(problems)
    for row in rows:
        try:
            question = make(row)
        except RowError as error:
            found.append(Problem(row.where, str(error)))
            continue
        if question is None:
            continue
        if question.id in questions:
            found.append(Problem(row.where, f"the id {question.id!r} is taken by {first[question.id]}"))
        else:
            questions[question.id], first[question.id] = question, row.where
    return Listing(list(questions.values()), found)


def choose_layout(folder: Path, *layouts: Sequence[str]) -> list[Path]:
    """The files of the first layout of which any file is there, below ``folder``.

    Raises:
        UserError: no file of any layout is there, or some of the chosen one are missing: it names them all.
    """
    chosen = next((names for names in layouts if any((folder / name).is_file() for name in names)), None)
    if chosen is None:
        wanted = "; or ".join(", ".join(names) for names in layouts)
        raise UserError(f"{folder}: the annotations are missing: put {wanted} there")
    absent = [name for name in chosen if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{folder}: the annotations {', '.join(absent)} are missing beside the others")
    return [folder / name for name in chosen]


def read_files(*paths: Path) -> list[list[Row]]:
    """The rows of every file, by its suffix: json (a list, or an object of rows by key), jsonl, csv, tsv or parquet.

    Raises:
        UserError: some cannot be read; it names every one and why.
    """
    found: list[list[Row]] = []
    errors: list[str] = []
    for path in paths:
        try:
            found.append([Row(f"{path.name}[{key!r}]", value, str(key)) for key, value in _read(path)])
        except (OSError, ValueError, RecursionError, csv.Error, pyarrow.ArrowException) as error:
            errors.append(f"{path}: cannot be read as {path.suffix.removeprefix('.')}: {error}")
    if errors:
        raise UserError("; ".join(errors))
    return found


def _read(path: Path) -> list[tuple[int | str, Any]]:
    if path.suffix == ".parquet":
        return list(enumerate(pyarrow.parquet.read_table(path).to_pylist()))
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".jsonl":
        return [(i, _line(line)) for i, line in enumerate(text.split("\n")) if line.strip()]
    if path.suffix in (".csv", ".tsv"):
        if "\x00" in text:
            raise ValueError("it has a null character")
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",")
        return list(enumerate(table))
    content = json.loads(text)
    if isinstance(content, Mapping):
        return list(content.items())
    if not isinstance(content, list):
        raise ValueError(f"it must hold a list or an object, not {shown(content)}")
    return list(enumerate(content))


def _line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return Unreadable(f"not JSON ({error}): {shown(line)}")


def as_json(value: Any, *, lines: bool = False) -> bytes:
    """JSON of a submission, as UTF-8: indented, or one item a line."""
    if lines:
        return "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in value).encode()
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
