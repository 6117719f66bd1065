"""Split a trained MemoryWAM into graphs with explicit memory, and bundle them."""

from memorywam_export.bundles.bundle import ExportOptions, export_bundle
from memorywam_export.checkpoints.checkpoint import Companions, checkpoint_from_argument
from memorywam_export.checkpoints.presets import contract_from_preset

__all__ = [
    "Companions",
    "ExportOptions",
    "checkpoint_from_argument",
    "contract_from_preset",
    "export_bundle",
]
