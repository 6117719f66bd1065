"""The products of a graph whose weight lies in the weights file: what quantization can change."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from memorywam_export.checkpoints.weights import Span

__all__ = ["ONCE_AN_INSTRUCTION", "Site", "sites_of", "weight_names"]

ONCE_AN_INSTRUCTION = "prompt_kv"
"""The graph whose activations stay wide under every recipe, so that its weights can be narrow where
another graph shares them. It runs when an instruction is added, so that its time does not count,
and what instructions to come will bring is not in those that are there: with scales of the tiny
model's one instruction, others' keys were off by a fifth."""
_SUFFIX = ".weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One weight of one graph, and the products that take it."""

    graph: str
    name: str
    """Of the weight in the weights file, without `.weight`."""
    weight: ir.Value
    products: tuple[ir.Node, ...]
    """MatMul or Gemm, whose second operand is the weight or its transpose."""
    is_transposed: bool
    """Is the weight stored as [outputs, inputs]?"""

    @property
    def key(self) -> str:
        """Return what the scale table calls the site: `graph/name`."""
        return f"{self.graph}/{self.name}"

    @property
    def is_of_weights_alone(self) -> bool:
        """Do its activations stay wide, whatever the recipe?"""
        return self.graph == ONCE_AN_INSTRUCTION

    @property
    def shape(self) -> tuple[int, int]:
        """Return outputs and inputs."""
        rows, columns = self.stored_shape
        return (rows, columns) if self.is_transposed else (columns, rows)

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Return the weight's shape as it is stored."""
        assert self.weight.shape is not None
        rows, columns = self.weight.shape.numpy()
        return rows, columns


def weight_names(model: ir.Model, spans: Mapping[str, Span]) -> dict[str, str]:
    """Return the name in the weights file of each initializer that points into it."""
    names = {span.offset: name for name, span in spans.items() if span.num_bytes}
    found = {}
    for key, value in model.graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            found[key] = names[tensor.offset or 0]
    return found


def sites_of(graph: str, model: ir.Model, names: Mapping[str, str]) -> list[Site]:
    """Return the products of a graph, in its order.

    Args:
        graph: Its name in the manifest.
        model: Functions inlined.
        names: Initializer to the weight's name in the weights file.
    """
    sites = []
    for key, name in names.items():
        weight = model.graph.initializers[key]
        if not name.endswith(_SUFFIX) or weight.shape is None or weight.shape.rank() != 2:
            continue
        found = _products(weight)
        if found is not None:
            site = Site(
                graph=graph,
                name=name.removesuffix(_SUFFIX),
                weight=weight,
                products=found[0],
                is_transposed=found[1],
            )
            sites.append(site)
    order = {node: place for place, node in enumerate(model.graph)}
    return sorted(sites, key=lambda site: order[site.products[0]])


def _products(weight: ir.Value) -> tuple[tuple[ir.Node, ...], bool] | None:
    """Return the products that take a weight and whether it is transposed; None if others do."""
    products: list[tuple[ir.Node, bool]] = []
    for use in weight.uses():
        is_turned = use.node.op_type == "Transpose"
        taken = use.node.outputs[0].uses() if is_turned else [use]
        for node, index in taken:
            if node.op_type not in ("MatMul", "Gemm") or index != 1:
                return None
            is_gemm_turned = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
            products.append((node, is_turned != is_gemm_turned))
    if not products or len({turned for _, turned in products}) > 1:
        return None
    return tuple(node for node, _ in products), products[0][1]
