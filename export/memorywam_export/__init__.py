"""Split a trained MemoryWAM into graphs with explicit memory, and bundle them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_HOMES = {
    "Companions": "memorywam_export.checkpoints.checkpoint",
    "ExportOptions": "memorywam_export.bundles.bundle",
    "checkpoint_from_argument": "memorywam_export.checkpoints.checkpoint",
    "contract_from_preset": "memorywam_export.checkpoints.presets",
    "export_bundle": "memorywam_export.bundles.bundle",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: help must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'memorywam_export' has no attribute '{name}'")
    import importlib

    found: object = getattr(importlib.import_module(_HOMES[name]), name)
    return found
