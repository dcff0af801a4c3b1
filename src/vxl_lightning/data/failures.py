"""Samples that training leaves out because their media cannot be read: named once each, and how many may be."""

import logging
from collections.abc import Iterable, Mapping

from vxl_lightning.data.shards import ShardReader
from vxl_lightning.errors import UserError

_NAMED = 5
_log = logging.getLogger(__name__)


class Failures:
    """What could not be read so far in this run, over all ranks.

    Args:
        reader: the dataset.
        max_failed: share of the dataset's samples that may fail, each counted once however often it comes.
    """

    def __init__(self, reader: ShardReader, max_failed: float) -> None:
        self._reader = reader
        self._max_failed = max_failed
        self._samples: set[int] = set()
        self._keys: dict[str, None] = {}

    def add(self, indices: Iterable[int], reasons: Mapping[int, str]) -> None:
        """Count samples, and log each key the first time.

        Args:
            indices: samples that failed in one step, in the same order on every rank.
            reasons: why, for those of this rank, which is the one that logs them.

        Raises:
            UserError: more samples failed than may; on every rank in the same step.
        """
        for index in indices:
            self._samples.add(index)
            key = self._reader.key(index)
            if key not in self._keys:
                self._keys[key] = None
                if index in reasons:
                    _log.warning("left out %s: %s", key, reasons[index])
        size = len(self._reader)
        if len(self._samples) > self._max_failed * size:
            named = ", ".join(list(self._keys)[:_NAMED]) + (", ..." if len(self._keys) > _NAMED else "")
            raise UserError(
                f"{self._reader.root}: {len(self._samples)} of {size} samples cannot be read, more than the share "
                f"max_failed={self._max_failed:g} allows: {named}; repair or drop them, or raise max_failed"
            )
