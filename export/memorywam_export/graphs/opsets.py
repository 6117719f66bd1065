"""Which ONNX opset the graphs take: the newest that the ONNX Runtime of this machine can run."""

from memorywam_runtime.versions import version_of

__all__ = ["COPY_OPSET", "IN_PLACE_OPSET", "default_opset"]

IN_PLACE_OPSET = 24
"""First opset with TensorScatter, which writes memory in place."""
COPY_OPSET = 20
"""Runs everywhere; the graphs give new rows out and the runtime copies them."""


def default_opset(onnxruntime_version: str | None = None) -> int:
    """Return the opset for an ONNX Runtime; that of this machine by default.

    Those before 1.24, the newest there is for Python 3.10, refuse opset 24. Where there is none,
    the graphs are for elsewhere.
    """
    version = onnxruntime_version or version_of("onnxruntime") or ""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    return COPY_OPSET if numbers and numbers < (1, 24) else IN_PLACE_OPSET
