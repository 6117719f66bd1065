"""Which graphs the ONNX Runtime here can run, and so which rungs the ladder has."""

from memorywam_export.graphs.opsets import default_opset

__all__ = ["NEWEST_OPSET", "ORT_RUNGS", "RUNGS"]

NEWEST_OPSET = default_opset()
"""The newest ONNX Runtime for Python 3.10 cannot write in place: there it runs the copy form."""
ORT_RUNGS = ("ort in place", "ort copy") if NEWEST_OPSET == 24 else ("ort copy",)
RUNGS = ("eager", *ORT_RUNGS)
