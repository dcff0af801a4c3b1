"""Media by reference: a file too long to copy stays where it is, and its entry says which file it was."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from vxl_lightning.data.files import inside
from vxl_lightning.data.media import VIDEO_SUFFIXES, suffix_of
from vxl_lightning.errors import UserError


@dataclass(frozen=True)
class Reference:
    """A video file that an entry refers to.

    Attributes:
        path: relative to the folder of the media.
        sha256: of its content.
        size: in bytes.
    """

    path: str
    sha256: str
    size: int

    def to_bytes(self) -> bytes:
        """The content of a ``ref.json`` member."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> "Reference":
        """What `to_bytes` wrote.

        Raises:
            UserError: damaged, or not of a video.
        """
        try:
            plain = json.loads(content)
            reference = cls(plain["path"], plain["sha256"], plain["size"])
            good = isinstance(reference.path, str) and isinstance(reference.size, int)
        except (ValueError, KeyError, TypeError):
            good = False
        if not good or suffix_of(reference.path) not in VIDEO_SUFFIXES:
            raise UserError(f"{where}.ref.json: not the path, sha256 and size of a video; write the dataset again")
        return reference

    def resolve(self, media_root: Path | None, where: str) -> Path:
        """The file, of the size it had.

        Raises:
            UserError: no folder was given, the path leaves it, or the file is missing or was changed.
        """
        if media_root is None:
            raise UserError(
                f"{where}: refers to {self.path!r}, which is not in the shard; give its folder as media_root"
            )
        path = inside(media_root, self.path, where)
        if not path.is_file():
            raise UserError(f"{where}: refers to {path}, which does not exist; bring it back or correct media_root")
        if (size := path.stat().st_size) != self.size:
            raise UserError(
                f"{where}: refers to {path}, which had {self.size} bytes and now has {size}; bring the file back or "
                "write the dataset again"
            )
        return path
