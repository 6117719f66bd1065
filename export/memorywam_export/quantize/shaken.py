"""Shaken bundles: quantized ones whose values round to a neighbouring step more often.

What rounds on one device to the step below may round on another to the step above; every layer
behind adds to that. Values that are pushed before they are rounded tell how far that can go.
"""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from memorywam_runtime.bundle import MANIFEST_FILE
from memorywam_runtime.manifest import Manifest, entry_from_file, manifest_to_json

__all__ = ["shaken_bundle"]

_STEP_FP8 = 2.0**-3
"""Of FLOAT8E4M3FN, over the value: three bits behind the point, at the lower end of an octave."""
_SEED = 0


def shaken_bundle(root: Path, out: Path, manifest: Manifest, reach: float = 0.5) -> Manifest:
    """Write a copy of a quantized bundle that pushes each value before it is rounded.

    The push is uniform, up to half a step either way, drawn once for each element of a row: of all
    values a quarter then round to the neighbouring step. Weights, and graphs without Q/DQ, are as
    they are.

    Args:
        root: The bundle.
        out: A directory, empty or absent, to write.
        manifest: Of the bundle.
        reach: Largest push, in steps.

    Returns:
        The copy's manifest, without a report.
    """
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(_SEED)
    graphs = {entry.file for entry in manifest.graphs.values() if entry.quantized is not None}
    reports = {manifest.parity.file, manifest.parity.page} if manifest.parity else set[str]()
    files = {}
    for name, entry in manifest.files.items():
        if name in reports:
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        if name not in graphs:
            _same_file(root / name, out / name)
            files[name] = entry
            continue
        model = ir.load(root / name)
        _shake(model.graph, rng, reach)
        ir.save(model, out / name)
        files[name] = entry_from_file(out / name)
    shaken = msgspec.structs.replace(manifest, files=files, parity=None)
    (out / MANIFEST_FILE).write_bytes(manifest_to_json(shaken))
    return shaken


def _shake(graph: ir.Graph, rng: np.random.Generator, reach: float) -> None:
    """Push what goes into every QuantizeLinear of a graph."""
    rounding = [node for node in graph if node.op_type == "QuantizeLinear"]
    for number, node in enumerate(rounding):
        taken, scale, result = node.inputs[0], node.inputs[1], node.outputs[0]
        assert taken is not None
        assert taken.shape is not None
        assert scale is not None
        assert scale.const_value is not None
        width = taken.shape[-1]
        assert isinstance(width, int)
        push = reach * rng.uniform(-1, 1, width)
        zero_point = node.inputs[2] if len(node.inputs) > 2 else None
        kind = result.dtype or (None if zero_point is None else zero_point.dtype)
        if kind == ir.DataType.FLOAT8E4M3FN:
            operator, factors = "Mul", 1 + _STEP_FP8 * push
        else:
            operator, factors = "Add", push * float(scale.const_value.numpy())
        pushed = ir.node(operator, [taken, _constant(graph, f"push.{number}", factors, scale)])
        pushed.outputs[0].name = f"push.{number}.result"
        pushed.outputs[0].type, pushed.outputs[0].shape = taken.type, taken.shape
        graph.insert_before(node, pushed)
        node.replace_input_with(0, pushed.outputs[0])


def _constant(graph: ir.Graph, name: str, values: NDArray[np.float64], scale: ir.Value) -> ir.Value:
    """Return a new initializer in the type of a scale, which is that of what is rounded."""
    assert scale.dtype is not None
    array = values.astype(scale.dtype.numpy())
    made = ir.Value(
        name=name,
        type=ir.TensorType(scale.dtype),
        shape=ir.Shape(array.shape),
        const_value=ir.Tensor(array, dtype=scale.dtype, name=name),
    )
    graph.register_initializer(made)
    return made


def _same_file(source: Path, target: Path) -> None:
    """Have a file under a second name, or where the file system cannot, a copy of it."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
