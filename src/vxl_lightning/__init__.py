"""VXL-Lightning: train, ablate and extend token compression for very long video.

Importing this package alone pulls in neither lightning nor transformers: every name
below is resolved on first use.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "VideoGrid": "vxl_lightning.tokens",
    "VideoTokens": "vxl_lightning.tokens",
    "Compressor": "vxl_lightning.compressors.base",
    "GroupCompressor": "vxl_lightning.compressors.base",
    "Masker": "vxl_lightning.maskers.base",
    "Mask": "vxl_lightning.maskers.base",
    "Selector": "vxl_lightning.selectors.base",
    "Selection": "vxl_lightning.selectors.base",
    "CacheCompressor": "vxl_lightning.caches.base",
    "Encoder": "vxl_lightning.encoders.base",
    "build": "vxl_lightning.registry",
    "load_pretrained": "vxl_lightning.models.pretrained",
    "ReconstructivePretraining": "vxl_lightning.modules.pretraining",
    "InstructionTuning": "vxl_lightning.modules.tuning",
    "VideoDataModule": "vxl_lightning.data.datamodule",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'vxl_lightning' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
