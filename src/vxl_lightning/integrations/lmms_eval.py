"""The entry point by which lmms-eval finds our models, ``--model vxl``; nothing heavy is imported."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

_MODULE = "vxl_lightning.integrations.lmms_eval_model"


def manifest() -> "ModelManifest":
    """What lmms-eval's registry is told: the class for messages, and with ``--force_simple`` that for likelihoods."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="vxl", chat_class_path=f"{_MODULE}.VxlMessages", simple_class_path=f"{_MODULE}.VxlTexts"
    )
