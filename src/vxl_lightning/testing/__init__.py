"""The conformance kit: the laws every plugin keeps, usable from pytest and ``vxl plugin check``.

A class declares a law it knowingly breaks, with the reason, and the kit reports it instead of skipping it::

    known_exceptions: ClassVar[dict[str, str]] = {"batch_order": "clusters over the whole batch"}
"""

from vxl_lightning.testing.case import BF16_TOLERANCE, FLOAT_TOLERANCE, LawBroken, NotApplicable, grid_of
from vxl_lightning.testing.kit import LawResult, check_plugin, laws, parametrize_laws

__all__ = [
    "BF16_TOLERANCE",
    "FLOAT_TOLERANCE",
    "LawBroken",
    "LawResult",
    "NotApplicable",
    "check_plugin",
    "grid_of",
    "laws",
    "parametrize_laws",
]
