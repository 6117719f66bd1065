"""Product costs: bytes and milliseconds of every product under every recipe."""

import math
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from memorywam_calibration.mixing.assignment import WIDE
from memorywam_export.quantize.quantize_sites import Site
from memorywam_export.recipes.recipes import RECIPES, block_length
from memorywam_runtime.backends import Run, backend_from_name
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.manifest import GraphEntry
from memorywam_runtime.tensors import TensorSpec

__all__ = ["byte_costs", "time_costs"]

_BITS = {"int8": 8, "fp8": 8, "int4": 4}
_ROUNDS = 15
_OPSET = 21
"""The first whose DequantizeLinear knows blocks."""
_IR_VERSION = 10


def byte_costs(
    sites: Iterable[Site], candidates: Sequence[str], wide_bytes: int
) -> dict[tuple[str, str], float]:
    """Return the bytes of every weight, wide and under each recipe, scales included.

    Args:
        sites: Products; a weight that several graphs take counts once.
        candidates: Recipes.
        wide_bytes: Of an element of the bundle's type.
    """
    costs: dict[tuple[str, str], float] = {}
    for site in sites:
        outputs, inputs = site.shape
        costs[site.name, WIDE] = float(outputs * inputs * wide_bytes)
        for name in candidates:
            recipe = RECIPES[name]
            assert recipe.weight is not None
            scales = {"channel": outputs, "tensor": 1}.get(recipe.granularity)
            if scales is None:
                scales = outputs * inputs // (block_length(inputs) or inputs)
            bits = outputs * inputs * _BITS[recipe.weight]
            costs[site.name, name] = bits / 8 + scales * wide_bytes
    return costs


def time_costs(
    sites: Iterable[Site],
    candidates: Sequence[str],
    contract: InferenceContract,
    *,
    num_threads: int = 1,
    tell: Callable[[str], None] = lambda doing: None,
) -> dict[tuple[str, str], float]:
    """Return the milliseconds of a tick that every product takes on ONNX Runtime, on this machine.

    Products of one shape are timed once, alone, in turns; those of a chunk count for all its steps.

    Args:
        sites: Products.
        candidates: Recipes.
        contract: How many rows a product is given, and how often.
        num_threads: Inside one operator.
        tell: Called with what is at work.
    """
    conventions, horizon = contract.conventions, contract.actions.horizon
    calls = {
        "cache_update": (contract.num_frame_tokens, 1),
        "action_step": (horizon, conventions.num_steps),
        "state_kv": (1, 1),
    }
    given = [(site, *calls.get(site.graph, (1, 0))) for site in sites]
    shapes = dict.fromkeys((rows, *site.shape) for site, rows, count in given if count)
    timed: dict[tuple[int, int, int], dict[str, float]] = {}
    for number, (rows, outputs, inputs) in enumerate(shapes, start=1):
        which = f"{number} of {len(shapes)} shapes"
        tell(f"times products of {rows} rows, {inputs} to {outputs}, {which}")
        timed[rows, outputs, inputs] = _timed((rows, outputs, inputs), candidates, num_threads)
    costs: dict[tuple[str, str], float] = {}
    for site, rows, count in given:
        for name in (WIDE, *candidates):
            took = count * timed[(rows, *site.shape)][name] if count else 0.0
            costs[site.name, name] = costs.get((site.name, name), 0.0) + took
    return costs


def _timed(
    shape: tuple[int, int, int], candidates: Sequence[str], num_threads: int
) -> dict[str, float]:
    """Return the median call of one shape under each recipe, ms, measured in turns."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: _product(Path(folder), shape, name, num_threads) for name in (WIDE, *candidates)
        }
    took: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0)
    for _ in range(_ROUNDS + 2):
        shuffle.shuffle(order)
        for name in order:
            started_s = time.perf_counter()
            runs[name]()
            took[name].append(1e3 * (time.perf_counter() - started_s))
    return {name: median(times[2:]) for name, times in took.items()}


def _product(folder: Path, shape: tuple[int, int, int], name: str, num_threads: int) -> Run:
    """Return what runs one product alone."""
    rows, outputs, inputs = shape
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((inputs, outputs)).astype(np.float32)
    nodes: list[Any] = []
    constants = {"w": numpy_helper.from_array(weight, "w")}
    taken = ["x", "w"]
    if name != WIDE:
        nodes, constants, taken = _quantized(weight, name)
    specs = [
        TensorSpec(name=one, shape=(1, rows, width), dtype="float32", meaning="of a product")
        for one, width in (("x", inputs), ("y", outputs))
    ]
    given, made = (
        helper.make_tensor_value_info(one.name, TensorProto.FLOAT, one.shape) for one in specs
    )
    product = helper.make_node("MatMul", taken, ["y"])
    graph = helper.make_graph(
        [*nodes, product], "product", [given], [made], list(constants.values())
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR_VERSION
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    entry = GraphEntry(
        file=path.name,
        inputs=(specs[0],),
        outputs=(specs[1],),
        quantized=None if name == WIDE else RECIPES[name].name,
    )
    backend = backend_from_name("ort", num_threads=num_threads, spin=False)
    x, y = (backend.view(backend.flat(math.prod(one.fixed_shape), one), one) for one in specs)
    backend.write(x, rng.standard_normal((1, rows, inputs)).astype(np.float32))
    return backend.load(path, entry).bind({"x": x}, {"y": y})


def _quantized(
    weight: np.ndarray[Any, np.dtype[np.float32]], name: str
) -> tuple[list[Any], dict[str, Any], list[str]]:
    """Return nodes before a product under a recipe, its constants, and what it takes."""
    recipe, (inputs, outputs) = RECIPES[name], weight.shape
    attributes: dict[str, Any]
    if recipe.granularity == "block":
        length = block_length(inputs) or inputs
        values = helper.make_tensor(
            "w", TensorProto.INT4, [inputs, outputs], np.zeros(inputs * outputs, np.int8)
        )
        scales = np.ones((inputs // length, outputs), np.float32)
        attributes = {"axis": 0, "block_size": length}
    else:
        values = numpy_helper.from_array(np.rint(weight * 20).astype(np.int8), "w")
        scales, attributes = np.full(outputs, 0.05, np.float32), {"axis": 1}
    constants = {"w": values, "s": numpy_helper.from_array(scales, "s")}
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["dw"], **attributes)]
    if recipe.activation is None:
        return nodes, constants, ["x", "dw"]
    scale = numpy_helper.from_array(np.array(0.03, np.float32), "xs")
    zero = numpy_helper.from_array(np.array(0, np.int8), "xz")
    nodes += [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "xs", "xz"], ["dx"]),
    ]
    return nodes, {**constants, "xs": scale, "xz": zero}, ["dx", "dw"]
