"""A small engine for the fake TensorRT, with memory that it writes in place."""

import math
from typing import Any

import numpy as np
from tests.fakes.tensorrt import Arrays, Plan

from memorywam_runtime.backends.trt import TrtBackend
from memorywam_runtime.manifest import GraphEntry
from memorywam_runtime.tensors import DType, TensorSpec

__all__ = ["ENTRY", "INPUTS", "OUTPUTS", "PLAN", "array", "sides", "spec"]


def spec(name: str, *shape: int | str, dtype: DType = "float32") -> TensorSpec:
    """Return a tensor of a test."""
    return TensorSpec(name=name, shape=shape, dtype=dtype, meaning="a test")


# Adds `x` to `total` and to every row of `memory`, the latter in place.
INPUTS = (spec("x", 1, 4), spec("memory", 1, 2, "rows", 4), spec("slot", 1, dtype="int64"))
OUTPUTS = (spec("total", 1, 4), spec("memory_out", 1, 2, "rows", 4))
ENTRY = GraphEntry(file="graph.onnx", inputs=INPUTS, outputs=OUTPUTS)


def compute(arrays: Arrays) -> None:
    """Do what the engine does."""
    np.add(arrays["x"], arrays["slot"], out=arrays["total"], casting="unsafe")
    np.add(arrays["memory"], arrays["x"][:, None, None], out=arrays["memory_out"])


PLAN = Plan(
    inputs=INPUTS,
    outputs=OUTPUTS,
    compute=compute,
    profiles=[{"rows": (1, 8, 64)}, {"rows": (1, 32, 64)}, {"rows": (65, 80, 99)}],
    aliases={"memory_out": "memory"},
)


def array(backend: TrtBackend, spec: TensorSpec, first: int = 0, **sizes: int) -> Any:
    """Return a zeroed tensor that starts at an element of its buffer."""
    bound = spec.bound(**sizes)
    flat = backend.flat(first + math.prod(bound.fixed_shape), bound)
    return backend.view(flat, bound, first)


def sides(backend: TrtBackend, rows: int = 8) -> Any:
    """Return inputs and outputs, with the memory shared."""
    inputs = {s.name: array(backend, s, rows=rows) for s in INPUTS}
    return inputs, {"total": array(backend, OUTPUTS[0]), "memory_out": inputs["memory"]}
