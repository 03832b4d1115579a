"""Base class of the engines of the Faster R-CNN config (detection/config.py): its defaults, checks and names."""

from typing import Any

from backbones.core.config import CfgNode
from backbones.core.distributed import world_size
from backbones.core.warning_counter import WarningCounter
from backbones.models.weights import BackboneFile
from detection.config import ROLES, describe_protocol, get_defaults, protocol_name, validate, weight_settings
from detection.config_pairs import warn_pairs
from detection.engines.base import Engine
from detection.exchange.compatibility import check_spec


class FasterRCNNEngine(Engine):
    """An engine of the Faster R-CNN config; define `build`, and refuse unsupported values by key in `check_keys`."""

    num_classes = "MODEL.ROI_HEADS.NUM_CLASSES"
    roles = ROLES

    def check_keys(self, cfg: CfgNode) -> None:
        """Raise `InputError` with the key of a value that this implementation does not support."""
        raise NotImplementedError

    def defaults(self) -> CfgNode:
        return get_defaults()

    def check_config(self, cfg: CfgNode) -> None:
        validate(cfg)
        self.check_keys(cfg)

    def check_backbone(self, cfg: CfgNode, backbone: BackboneFile | None) -> None:
        check_spec(backbone, cfg)

    def warn(self, cfg: CfgNode, warnings: WarningCounter) -> None:
        warn_pairs(cfg, world_size(), warnings)

    def protocol_name(self, cfg: CfgNode) -> str:
        return protocol_name(cfg)

    def describe_protocol(self, cfg: CfgNode, *fingerprints: str) -> dict[str, Any]:
        return describe_protocol(cfg, *fingerprints)

    def weight_settings(self, cfg: CfgNode) -> dict[str, Any]:
        return weight_settings(cfg)
