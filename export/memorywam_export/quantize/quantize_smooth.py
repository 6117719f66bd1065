"""Smoothing: what products take is divided channel by channel, their weights multiplied, exactly.

A tensor has one scale, so one large channel makes the step coarse for all. Factors bring channels
nearer to each other; weights, which have a scale for each output, pay for it with less. Nothing is
computed for it on tokens: the division goes into the norm that makes the tensor, and, where a shift
is added behind the norm, into that vector.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from memorywam_export.quantize.quantize_folds import Fold
from memorywam_export.quantize.quantize_sites import Site
from memorywam_runtime.errors import InputError
from memorywam_runtime.scale_table import ScaleTable

__all__ = [
    "SharedInput",
    "Smoothing",
    "divide_inputs",
    "new_constant",
    "shared_inputs",
    "smoothing_from_table",
]

_AGAIN = "calibrate this bundle again"
_LAST_AXES = (-1, 2)
"""Of tokens [1, n, channels]."""


@dataclass(frozen=True, slots=True)
class _Producer:
    """What makes one tensor [..., channels] of tokens."""

    norm: ir.Node
    """LayerNormalization."""
    scale: tuple[ir.Node, int] | None = None
    """Product behind it, and the place of the vector 1 + scale; None where there is none."""
    shift: tuple[ir.Node, int] | None = None
    """Addition behind that, and the place of the vector that is added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedInput:
    """Products that take the same tensors, which could be divided."""

    sites: tuple[Site, ...]
    producers: tuple[_Producer, ...]
    """One for each tensor: a graph that holds several steps makes one in each."""

    @property
    def key(self) -> str:
        """Return what the scale table calls it: the first site's `graph/name:input`."""
        return f"{self.sites[0].key}:input"

    @property
    def graph(self) -> str:
        """Return the graph that it is in."""
        return self.sites[0].graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """What a table's factors do to a bundle."""

    inputs: tuple[tuple[SharedInput, tuple[float, ...]], ...]
    """Each with its factors by channel."""
    folds: tuple[Fold, ...]
    """Of the weights file."""


def shared_inputs(sites: Iterable[Site]) -> list[SharedInput]:
    """Return the inputs that can be divided, each with all products that take it.

    Args:
        sites: All products of a bundle's graphs, before anything is placed.
    """
    groups: dict[tuple[ir.Value | None, ...], list[Site]] = {}
    for site in sites:
        groups.setdefault(tuple(node.inputs[0] for node in site.products), []).append(site)
    found = []
    for values, group in groups.items():
        producers = [
            _producer(value, {site.products[place] for site in group})
            for place, value in enumerate(values)
            if value is not None
        ]
        known = tuple(one for one in producers if one is not None)
        if len(known) == len(values):
            found.append(SharedInput(sites=tuple(group), producers=known))
    behind = {site.key for shared in found for site in shared.sites}
    # A weight is stored once: what takes it elsewhere has to be divided too.
    bound = {site.name for group in groups.values() for site in group if site.key not in behind}
    return [one for one in found if not bound & {site.name for site in one.sites}]


def smoothing_from_table(
    table: ScaleTable, sites: Iterable[Site], names: Mapping[str, Mapping[str, str]]
) -> Smoothing:
    """Return what a table's factors mean for a bundle.

    Args:
        table: Of this bundle.
        sites: All its products.
        names: Graph to initializer to the tensor's name in the weights file.

    Raises:
        InputError: factors for an input that is not there, of another number, or that differ
            between graphs that share a weight.
    """
    sites = list(sites)
    by_key = {one.key: one for one in shared_inputs(sites)}
    inputs: list[tuple[SharedInput, tuple[float, ...]]] = []
    folds: dict[str, Fold] = {}
    for key, entry in sorted(table.smooth.items()):
        shared = by_key.get(key)
        found = None if shared is None else tuple(site.key for site in shared.sites)
        if shared is None or found != entry.sites:
            raise InputError(
                f"the scale table smooths '{key}' for {', '.join(entry.sites)}; the bundle has "
                f"{', '.join(found or ()) or 'no such input behind a norm'}; expected the same "
                f"products: {_AGAIN}"
            )
        count = shared.sites[0].shape[1]
        if len(entry.factors) != count:
            raise InputError(
                f"the scale table has {len(entry.factors)} factors for '{key}'; expected {count}, "
                f"one for each channel: {_AGAIN}"
            )
        inputs.append((shared, entry.factors))
        for fold in _folds(shared, entry.factors, names[shared.graph]):
            if folds.setdefault(fold.tensor, fold) != fold:
                raise InputError(
                    f"the scale table smooths '{key}' otherwise than another graph that takes "
                    f"'{fold.tensor}'; expected the same factors, since it is stored once: {_AGAIN}"
                )
    divided = {site.key for shared, _ in inputs for site in shared.sites}
    for site in sites:
        if f"{site.name}.weight" in folds and site.key not in divided:
            raise InputError(
                f"the scale table smooths '{site.name}' and not '{site.key}', which takes the same "
                f"weight; expected both, since it is stored once: {_AGAIN}"
            )
    return Smoothing(inputs=tuple(inputs), folds=tuple(folds.values()))


def divide_inputs(
    model: ir.Model,
    names: Mapping[str, str],
    inputs: Iterable[tuple[SharedInput, tuple[float, ...]]],
) -> None:
    """Divide inputs of a graph; the weights that take them are multiplied by folds.

    Args:
        model: Changed in place.
        names: Initializer to the tensor's name in the weights file: these are divided there.
        inputs: Of this graph, each with its factors.
    """
    for number, (shared, factors) in enumerate(inputs):
        divided = 1 / np.array(factors)
        for place, producer in enumerate(shared.producers):
            stem = f"smooth.{number}.{place}"
            for index, value in enumerate(producer.norm.inputs[1:], 1):
                if value is not None and _stored(value).name not in names:
                    _replace_constant(model.graph, producer.norm, index, divided, stem)
            if producer.shift is not None:
                _multiply(model.graph, *producer.shift, divided, stem)


def _producer(value: ir.Value, takers: set[ir.Node]) -> _Producer | None:
    """Return what makes a tensor, if nothing but these nodes takes it."""
    node = value.producer()
    if node is None or {use.node for use in value.uses()} != takers or value.is_graph_output():
        return None
    match node.op_type:
        case "Cast":
            return None if node.inputs[0] is None else _producer(node.inputs[0], {node})
        case "LayerNormalization" if _is_plain(node):
            return _Producer(node)
        case "Add":
            for place in (0, 1):
                found = _scaled(node.inputs[place], node)
                if found is not None:
                    return _Producer(*found, shift=(node, 1 - place))
    return None


def _scaled(value: ir.Value | None, taker: ir.Node) -> tuple[ir.Node, tuple[ir.Node, int]] | None:
    """Return norm and product of norm * (1 + scale), if nothing but the shift takes it."""
    product = None if value is None else value.producer()
    if value is None or product is None or product.op_type != "Mul":
        return None
    if {use.node for use in value.uses()} != {taker}:
        return None
    for place, factor in enumerate(product.inputs):
        made = None if factor is None else _producer(factor, {product})
        if made is not None and made.shift is None:
            return made.norm, (product, 1 - place)
    return None


def _is_plain(norm: ir.Node) -> bool:
    """Does a norm go over channels alone, with weights that are constants of the graph?"""
    weights = [value for value in norm.inputs[1:] if value is not None]
    return norm.attributes.get_int("axis", -1) in _LAST_AXES and all(
        _stored(value).const_value is not None for value in weights
    )


def _stored(value: ir.Value) -> ir.Value:
    """Return what a value is cast from, or itself."""
    node = value.producer()
    if node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
        return node.inputs[0]
    return value


def _folds(
    shared: SharedInput, factors: tuple[float, ...], names: Mapping[str, str]
) -> Iterable[Fold]:
    """Yield what dividing an input does to the weights file."""
    divided = tuple((1 / np.array(factors)).tolist())
    for producer in shared.producers:
        for value in producer.norm.inputs[1:]:
            name = None if value is None else names.get(_stored(value).name or "")
            if name is not None:
                yield Fold(tensor=name, axis=0, factors=divided)
    for site in shared.sites:
        axis = 1 if site.is_transposed else 0
        yield Fold(tensor=f"{site.name}.weight", axis=axis, factors=factors)


def _replace_constant(
    graph: ir.Graph, node: ir.Node, index: int, factors: np.ndarray, stem: str
) -> None:
    """Give a node a constant of its own, multiplied: other nodes may share the old one."""
    value = node.inputs[index]
    assert value is not None
    stored = _stored(value).const_value
    assert stored is not None
    assert value.dtype is not None
    numbers = stored.numpy().astype(np.float64) * factors
    node.replace_input_with(
        index, new_constant(graph, numbers, value.dtype, f"{stem}.norm.{index}")
    )


def _multiply(graph: ir.Graph, node: ir.Node, index: int, factors: np.ndarray, stem: str) -> None:
    """Have a node take a vector multiplied by factors."""
    value = node.inputs[index]
    assert value is not None
    assert value.dtype is not None
    constant = new_constant(graph, factors, value.dtype, f"{stem}.factors")
    product = ir.node("Mul", [value, constant])
    result = product.outputs[0]
    result.name, result.type, result.shape = f"{stem}.shift", value.type, value.shape
    graph.insert_before(node, product)
    node.replace_input_with(index, result)


def new_constant(graph: ir.Graph, numbers: np.ndarray, dtype: ir.DataType, name: str) -> ir.Value:
    """Return a new constant of a graph."""
    tensor = ir.Tensor(numbers.astype(dtype.numpy()), dtype=dtype, name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(dtype), shape=ir.Shape(numbers.shape), const_value=tensor
    )
    graph.register_initializer(value)
    return value
