"""Gains by denoising step: each step fills the one scale that all have, and nothing else changes.

What a modulated norm gives out is multiplied by the step's gain before it is rounded, in the
modulation's vectors, and divided by it behind the products. The gains travel with the modulation,
as one more row of it, so that a session that makes one table for its steps needs to know nothing.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import onnx_ir as ir

from memorywam_export.quantize.quantize_sites import Site
from memorywam_export.quantize.quantize_smooth import SharedInput, new_constant, shared_inputs
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import GraphEntry, Manifest
from memorywam_runtime.scale_table import ScaleTable
from memorywam_runtime.tensors import TensorSpec

__all__ = ["check_steps", "stepped_inputs", "with_gains", "with_longer_modulation"]

GRAPH, TABLE_GRAPH = "action_step", "action_modulation"
_NAME, _ROWS = "modulation", 6
_AGAIN = "calibrate this bundle again"


def check_steps(manifest: Manifest) -> None:
    """Refuse a bundle whose steps cannot have gains.

    Raises:
        InputError: it makes no table of modulations, or holds all steps in one graph.
    """
    if "modulation-table" not in manifest.rewrites or "action_denoise" in manifest.graphs:
        found = ", ".join(manifest.rewrites) or "none"
        raise InputError(
            f"found the rewrites {found} and the graphs {', '.join(manifest.graphs)}; expected "
            "modulation-table, and no action_denoise, for gains by step: export the checkpoint so, "
            "or leave gains out"
        )


def stepped_inputs(sites: Iterable[Site]) -> list[SharedInput]:
    """Return the inputs of a denoising step that can have gains: those behind a modulated norm."""
    return [
        one
        for one in shared_inputs(sites)
        if one.graph == GRAPH
        and all(producer.shift is not None for producer in one.producers)
        and all(node.op_type == "MatMul" for site in one.sites for node in site.products)
    ]


def with_gains(
    models: Mapping[str, ir.Model], manifest: Manifest, sites: Iterable[Site], table: ScaleTable
) -> Manifest:
    """Give the graphs of a bundle the gains of a table; return the manifest with their specs.

    Args:
        models: Changed in place: the step, and what makes its modulation.
        manifest: Of the bundle.
        sites: All its products.
        table: Of this bundle; without gains nothing is changed.

    Raises:
        InputError: gains for a bundle or an input that cannot have them, or that do not fit.
    """
    if not table.steps:
        return manifest
    check_steps(manifest)
    by_key = {one.key: one for one in stepped_inputs(sites)}
    hidden = manifest.contract.action.hidden
    gains = np.ones((len(_timesteps(table)), 1, hidden))
    step, m = models[GRAPH], next(v for v in models[GRAPH].graph.inputs if v.name == _NAME)
    row = _split(step.graph, m)
    for number, (key, entry) in enumerate(sorted(table.steps.items())):
        shared = by_key.get(key)
        found = None if shared is None else tuple(site.key for site in shared.sites)
        if shared is None or found != entry.sites or number >= hidden:
            raise InputError(
                f"the scale table has gains for '{key}' of {', '.join(entry.sites)}; the bundle "
                f"has {', '.join(found or ()) or 'no such input behind a modulated norm'}; "
                f"expected the same products: {_AGAIN}"
            )
        gains[:, 0, number] = entry.gains
        _place(step.graph, row, number, shared)
    _append_row(models[TABLE_GRAPH].graph, _timesteps(table), gains)
    graphs = {
        graph: with_longer_modulation(entry) if graph in (GRAPH, TABLE_GRAPH) else entry
        for graph, entry in manifest.graphs.items()
    }
    return msgspec.structs.replace(manifest, graphs=graphs)


def with_longer_modulation(entry: GraphEntry) -> GraphEntry:
    """Return a graph's entry with one more row in the modulation that it takes or gives out."""

    def longer(spec: TensorSpec) -> TensorSpec:
        if spec.name != _NAME:
            return spec
        shape = (1, _ROWS + 1, spec.fixed_shape[-1])
        return msgspec.structs.replace(
            spec, shape=shape, meaning=f"{spec.meaning}; then a row of gains of quantizers"
        )

    return msgspec.structs.replace(
        entry,
        inputs=tuple(longer(spec) for spec in entry.inputs),
        outputs=tuple(longer(spec) for spec in entry.outputs),
    )


def _timesteps(table: ScaleTable) -> Sequence[float]:
    """Return the timesteps that all gains are of."""
    each = {entry.timesteps for entry in table.steps.values()}
    if len(each) != 1:
        raise InputError(
            f"the scale table has gains for {len(each)} lists of timesteps; expected one list for "
            f"all inputs: {_AGAIN}"
        )
    return each.pop()


def _split(graph: ir.Graph, modulation: ir.Value) -> ir.Value:
    """Have a graph take a longer modulation; return its last row [1, hidden]."""
    assert modulation.dtype is not None
    assert modulation.shape is not None
    hidden = modulation.shape.numpy()[-1]
    bounds = [
        new_constant(graph, np.array([number]), ir.DataType.INT64, f"gains.{name}")
        for name, number in (("first", 0), ("end", _ROWS), ("axis", 1))
    ]
    uses = list(modulation.uses())
    rows = ir.node("Slice", [modulation, *bounds])
    index = new_constant(graph, np.array(_ROWS), ir.DataType.INT64, "gains.row")
    last = ir.node("Gather", [modulation, index], attributes={"axis": 1})
    for node, name, shape in (
        (rows, f"{_NAME}.plain", (1, _ROWS, hidden)),
        (last, "gains", (1, hidden)),
    ):
        _named(node.outputs[0], name, modulation.dtype, shape)
    graph.insert_before(graph[0], [rows, last])
    for node, place in uses:
        node.replace_input_with(place, rows.outputs[0])
    modulation.shape = ir.Shape((1, _ROWS + 1, hidden))
    return last.outputs[0]


def _place(graph: ir.Graph, row: ir.Value, number: int, shared: SharedInput) -> None:
    """Multiply an input by its gain, in its vectors, and divide what its products give out."""
    assert row.dtype is not None
    index = new_constant(graph, np.array([number]), ir.DataType.INT64, f"gains.{number}.index")
    taken = ir.node("Gather", [row, index], attributes={"axis": 1})
    inverse = ir.node("Reciprocal", [taken.outputs[0]])
    _named(taken.outputs[0], f"gains.{number}", row.dtype, (1, 1))
    _named(inverse.outputs[0], f"gains.{number}.inverse", row.dtype, (1, 1))
    last = row.producer()
    assert last is not None
    graph.insert_after(last, [taken, inverse])
    for producer in shared.producers:
        for vector in (producer.scale, producer.shift):
            assert vector is not None
            node, place = vector
            value = node.inputs[place]
            assert value is not None
            product = _multiplied(graph, value, taken.outputs[0], node)
            node.replace_input_with(place, product)
    for site in shared.sites:
        for node in site.products:
            given = node.outputs[0]
            uses, name = list(given.uses()), given.name
            if given.dtype is None:  # not all that exporters write is typed
                assert site.weight.dtype is not None
                given.type = ir.TensorType(site.weight.dtype)
            product = _multiplied(graph, given, inverse.outputs[0], node, is_behind=True)
            # What goes on keeps its name: who looks for it finds what it was.
            given.name, product.name = product.name, name
            for user, place in uses:
                user.replace_input_with(place, product)


def _multiplied(
    graph: ir.Graph, value: ir.Value, factor: ir.Value, node: ir.Node, *, is_behind: bool = False
) -> ir.Value:
    """Return a value times a factor [1, 1], made before a node or behind it."""
    steps = []
    dtype = value.dtype
    assert dtype is not None
    if factor.dtype != dtype:
        steps.append(ir.node("Cast", [factor], attributes={"to": int(dtype)}))
        _named(steps[0].outputs[0], f"{value.name}.gain", dtype, (1, 1))
        factor = steps[0].outputs[0]
    steps.append(ir.node("Mul", [value, factor]))
    result = steps[-1].outputs[0]
    result.name, result.shape = f"{value.name}.{'even' if is_behind else 'gained'}", value.shape
    result.type = ir.TensorType(dtype)
    if is_behind:
        graph.insert_after(node, steps)
    else:
        graph.insert_before(node, steps)
    return result


def _append_row(graph: ir.Graph, timesteps: Sequence[float], gains: np.ndarray) -> None:
    """Have the graph of modulations give out the nearest timestep's gains [1, 1, hidden] too."""
    timestep, plain = graph.inputs[0], graph.outputs[0]
    assert timestep.dtype is not None
    assert plain.dtype is not None
    assert plain.name == _NAME
    plain.name = f"{_NAME}.plain"
    known = new_constant(graph, np.array(timesteps), timestep.dtype, "gains.timesteps")
    rows = new_constant(graph, gains, plain.dtype, "gains.rows")
    apart = ir.node("Sub", [known, timestep])
    size = ir.node("Abs", [apart.outputs[0]])
    nearest = ir.node("ArgMin", [size.outputs[0]], attributes={"axis": 0})
    row = ir.node("Gather", [rows, nearest.outputs[0]], attributes={"axis": 0})
    both = ir.node("Concat", [plain, row.outputs[0]], attributes={"axis": 1})
    count, hidden = len(timesteps), gains.shape[-1]
    for node, name, dtype, shape in (
        (apart, "gains.apart", timestep.dtype, (count,)),
        (size, "gains.distance", timestep.dtype, (count,)),
        (nearest, "gains.nearest", ir.DataType.INT64, (1,)),
        (row, "gains.chosen", plain.dtype, (1, 1, hidden)),
        (both, _NAME, plain.dtype, (1, _ROWS + 1, hidden)),
    ):
        _named(node.outputs[0], name, dtype, shape)
        graph.append(node)
    graph.outputs[0] = both.outputs[0]


def _named(value: ir.Value, name: str, dtype: ir.DataType, shape: tuple[int, ...]) -> None:
    """Give a value its name, type and shape."""
    value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
