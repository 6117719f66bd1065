"""The smallest model that shows a fault: one operator's file with its inputs, to run or to send.

Polygraphy's `debug reduce` finds such a model by trial, one run of a check for each cut; here the
search has found the operator already, so that one cut is all. Its `surgeon extract` makes that
cut too, but would make Polygraphy, a tool of the tests, a part of the export.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from memorywam_export.bisect.bisect_cause import embedded
from memorywam_export.bisect.bisect_suspect import Exposed, Suspect
from memorywam_export.parity.trace_report import Array, Tensors

__all__ = ["by_the_standard", "small_model", "write_small_model"]


def small_model(
    suspect: Suspect, root: Path, value: Exposed, given: Mapping[str, Array], aligned: set[str]
) -> tuple[onnx.ModelProto, Tensors]:
    """Return a model of what lies between a value and those before it, and that model's inputs.

    Args:
        suspect: The bundle's graph.
        root: The bundle; its weights are copied into the model.
        value: What the model makes.
        given: Numbers for values and for the graph's inputs, by name; those needed are taken.
        aligned: The values at which to cut.
    """
    nodes = suspect.nodes_between(value.name, aligned)
    made = {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in node.input} - made
    inputs = {name: np.ascontiguousarray(given[name]) for name in given if name in read}
    graph = helper.make_graph(
        nodes,
        "fault",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
        ],
        [
            helper.make_tensor_value_info(
                value.name, helper.np_dtype_to_tensor_dtype(value.spec.zeros().dtype), value.shape
            )
        ],
        [embedded(t, root) for t in suspect.model.graph.initializer if t.name in read],
    )
    model = helper.make_model(
        graph, opset_imports=suspect.model.opset_import, ir_version=suspect.model.ir_version
    )
    return model, inputs


def by_the_standard(model: onnx.ModelProto, inputs: Tensors) -> Array | None:
    """Return what ONNX's own reference makes of a small model; None where it cannot run it.

    A whole graph would take it minutes; between two values it takes milliseconds, and tells a
    file that is wrong from a runtime that is.
    """
    try:
        (found,) = ReferenceEvaluator(model).run(None, inputs)
    except Exception:  # whatever numpy raises
        return None
    return np.asarray(found)


def write_small_model(
    path: Path, model: onnx.ModelProto, inputs: Tensors, outputs: Mapping[str, Array | None]
) -> tuple[Path, Path]:
    """Write a small model, and its numbers beside it as .npz; return both paths.

    Args:
        path: The ONNX file.
        model: The model.
        inputs: By name.
        outputs: What it must give, and what others make of it; those that exist are written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    arrays = path.with_suffix(".npz")
    np.savez(
        arrays,
        allow_pickle=False,
        **{f"input.{name}": array for name, array in inputs.items()},
        **{f"output.{name}": array for name, array in outputs.items() if array is not None},
    )
    return path, arrays
