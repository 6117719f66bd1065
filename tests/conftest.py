"""Versions in the header, and what many tests share."""

from memorywam_runtime.versions import versions


def pytest_report_header() -> str:
    """Most of 'it works here' is explained by these."""
    shown = ("python", "torch", "onnxruntime", "onnx", "mujoco", "numpy")
    found = versions()
    return "versions: " + ", ".join(f"{name} {found.get(name, 'absent')}" for name in shown)
