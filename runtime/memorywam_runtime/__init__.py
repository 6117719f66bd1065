"""Run MemoryWAM bundles on a robot, without torch and without onnx."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memorywam_runtime.bundle import open_bundle
    from memorywam_runtime.observation import Observation
    from memorywam_runtime.policy import Policy
    from memorywam_runtime.session import Session

__all__ = ["Observation", "Policy", "Session", "open_bundle"]

_HOMES = {
    "Observation": "memorywam_runtime.observation",
    "Policy": "memorywam_runtime.policy",
    "Session": "memorywam_runtime.session",
    "open_bundle": "memorywam_runtime.bundle",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the program's help must not wait for numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'memorywam_runtime' has no attribute '{name}'")
    import importlib

    found: object = getattr(importlib.import_module(_HOMES[name]), name)
    return found
