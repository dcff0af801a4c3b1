"""What a sample is: one video and a conversation about it, in the LLaVA layout.

A record is ``{"id": ..., "video": ..., "conversations": [{"from": "human"|"gpt", "value": ...}, ...], ...}``;
whatever else it holds is kept in ``meta``. Files are a JSON list or one record a line, read as a stream.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from vxl_lightning.data.media import IMAGE_SUFFIXES, suffix_of
from vxl_lightning.errors import UserError

Role = Literal["human", "gpt"]
ROLES: tuple[Role, ...] = ("human", "gpt")
_CHUNK = 1 << 20
_SPACE = re.compile(r"\s*")
_LARGEST_RECORD = 64 << 20


@dataclass(frozen=True)
class Turn:
    """One side of an exchange."""

    role: Role
    text: str


@dataclass(frozen=True)
class Sample:
    """One video and what is asked and answered about it; turns alternate and the human speaks first.

    ``video`` is a path: of a video file, a folder of frames, or an image (the record's ``image``).
    """

    id: str
    video: str
    conversations: tuple[Turn, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """The LLaVA record; ``from_record`` gives the same sample back."""
        turns = [{"from": t.role, "value": t.text} for t in self.conversations]
        shown = "image" if suffix_of(self.video) in IMAGE_SUFFIXES else "video"
        return {"id": self.id, shown: self.video, "conversations": turns, **self.meta}

    @classmethod
    def from_record(cls, record: object, where: str) -> "Sample":
        """Check one parsed record.

        Args:
            record: what JSON gave.
            where: file and record number, the beginning of every error.

        Raises:
            UserError: a field is missing or has the wrong type or value.
        """
        if not isinstance(record, dict):
            raise UserError(
                f"{where}: a record must be an object with id, video and conversations, got {_kind(record)}"
            )
        name = record.get("id")
        if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
            raise UserError(f"{where}: field 'id' must be a non-empty string or an integer, got {_show(record, 'id')}")
        where = f"{where} (id {str(name)!r})"
        if "video" in record and "image" in record:
            raise UserError(f"{where}: fields 'video' and 'image' are both there; give the one that is shown")
        shown = "image" if "image" in record else "video"
        video = record.get(shown)
        if not isinstance(video, str) or not video:
            raise UserError(f"{where}: field {shown!r} must be the path of a {shown} file, got {_show(record, shown)}")
        turns = record.get("conversations")
        if not isinstance(turns, list) or not turns:
            raise UserError(
                f"{where}: field 'conversations' must be a non-empty list of {{'from', 'value'}}, "
                f"got {_show(record, 'conversations')}"
            )
        checked = tuple(_turn(t, i, where) for i, t in enumerate(turns))
        meta = {k: v for k, v in record.items() if k not in ("id", shown, "conversations")}
        return cls(str(name), video, checked, meta)


def _turn(turn: object, index: int, where: str) -> Turn:
    where = f"{where}: conversations[{index}]"
    if not isinstance(turn, dict):
        raise UserError(f"{where} must be an object with 'from' and 'value', got {_kind(turn)}")
    expected = ROLES[index % 2]
    if turn.get("from") != expected:
        raise UserError(
            f"{where}: field 'from' must be {expected!r} (human and gpt alternate, human first), "
            f"got {_show(turn, 'from')}"
        )
    if not isinstance(turn.get("value"), str):
        raise UserError(f"{where}: field 'value' must be a string, got {_show(turn, 'value')}")
    return Turn(expected, cast(str, turn["value"]))


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _show(record: dict[str, Any], key: str) -> str:
    if key not in record:
        return "nothing (the field is missing)"
    text = json.dumps(record[key], default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_annotations(path: str | Path) -> Iterator[Sample]:
    """Stream the samples of a ``.json`` list or a JSONL file; memory holds one record at a time.

    Raises:
        UserError: the file is missing, is not UTF-8 JSON, or a record is wrong. The message names the file,
            the record (counted from 1) or the line, the field, and what is allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such annotation file; give a JSON list or JSONL file of LLaVA records")
    empty = True
    for where, record in read_records(path):
        empty = False
        if isinstance(record, UserError):
            raise record
        yield Sample.from_record(record, where)
    if empty:
        raise UserError(f"{path}: holds no record; a JSON list or JSONL file of LLaVA records is expected")


def read_records(path: Path) -> Iterator[tuple[str, object]]:
    """Stream what JSON says, unchecked, each with its file and number; memory holds one record at a time.

    A line of a JSONL file that is not JSON is given as the `UserError` it is worth, so that whoever wants to may set
    it aside and read on.

    Raises:
        UserError: the file is not UTF-8, or its list is broken, after which nothing more can be read.
    """
    try:
        with path.open(encoding="utf-8-sig") as handle:
            yield from _records(path, handle)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def write_annotations(path: str | Path, samples: list[Sample]) -> None:
    """Write samples as JSONL, keys in the order of ``Sample.to_record``."""
    with Path(path).open("w", encoding="utf-8") as handle:
        for sample in samples:
            handle.write(json.dumps(sample.to_record(), ensure_ascii=False) + "\n")


def _records(path: Path, handle: TextIO) -> Iterator[tuple[str, object]]:
    start = handle.read(_CHUNK)
    if start.lstrip().startswith("["):
        yield from _list_records(path, handle, start.lstrip()[1:])
        return
    handle.seek(0)
    for number, line in enumerate(handle, 1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                reason = f"{error.msg} at column {error.colno}"
                record = UserError(f"{where}: not JSON ({reason}); a JSON list or one record a line is expected")
            except RecursionError:
                record = UserError(f"{where}: nested too deeply to be a record; remove it")
            except ValueError as error:  # a number of thousands of digits
                record = UserError(f"{where}: not JSON that can be read ({str(error)[:80]}); remove it")
            yield where, record


def _list_records(path: Path, handle: TextIO, text: str) -> Iterator[tuple[str, object]]:
    """Records of a JSON list, parsed as the text arrives; ``text`` is what follows the ``[``."""
    decoder = json.JSONDecoder()
    number, step, place = 1, _CHUNK, 0  # what is before ``place`` is done with; cutting it off each time would be slow
    while True:
        place = _skipped(text, place)
        if text.startswith("]", place):
            rest = text[place + 1 :] + handle.read()
            if rest.strip():
                raise UserError(f"{path}: text after the closing ']' of the list ({rest.strip()[:20]!r}); remove it")
            return
        try:
            record, end = decoder.raw_decode(text, place)
            end = _skipped(text, end)
            if end == len(text):  # A number may go on, and what separates the records is not here yet.
                raise json.JSONDecodeError("Unexpected end of the list", text, end)
        except RecursionError:
            raise UserError(f"{path}, record {number}: nested too deeply to be a record; remove it") from None
        except json.JSONDecodeError as error:
            more = handle.read(step)
            if not more or len(text) - place > _LARGEST_RECORD:
                raise UserError(
                    f"{path}, record {number}: not JSON ({error.msg}); a list [{{...}}, ...] of records is expected"
                ) from None
            text, place = text[place:] + more, 0
            step *= 2
            continue
        yield f"{path}, record {number}", record
        step = _CHUNK
        number += 1
        if text[end] not in ",]":
            raise UserError(f"{path}: a ',' or ']' must follow record {number - 1}, got {text[end]!r}")
        place = end + (text[end] == ",")


def _skipped(text: str, place: int) -> int:
    """The place of the next character that is no space; the end of the text where there is none."""
    match = _SPACE.match(text, place)
    assert match is not None
    return match.end()
