"""What each graph computes and reads, counted on tensors without data, at any size."""

from collections.abc import Iterable
from typing import Any

import msgspec
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from memorywam_export.eager.eager import graph_modules, specs_of
from memorywam_export.graphs.graph_spec import TORCH_DTYPES, GraphSpec
from memorywam_export.graphs.graph_specs import KEYS, ROWS
from memorywam_export.graphs.rewrites import Rewrites, RewrittenModel
from memorywam_export.reference.model import MemoryWam
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.manifest import CacheWrite, GraphCost
from memorywam_runtime.tensors import TensorSpec

__all__ = ["graph_costs"]

_DEPTHS = (2, 3)
"""Layers to count at: all but the last video layer are alike, so more add the same each."""
_ROWS = (1 << 10, 1 << 11)
"""Rows of memory to count at: what grows with them grows in a straight line."""


def graph_costs(
    contract: InferenceContract,
    dtype: torch.dtype,
    cache_write: CacheWrite,
    rewrites: Rewrites,
    graphs: Iterable[str] | None = None,
) -> dict[str, GraphCost]:
    """Return the cost of one call of each graph.

    The graphs' own modules run on the device "meta", where tensors have shapes and no data, with
    two layers and with three; from there on a graph grows in a straight line. Counted are matrix
    products and convolutions, two operations a product; what is elementwise is below 1 % of them.

    Args:
        contract: Sizes and conventions.
        dtype: Of weights, keys and values.
        cache_write: How the graphs write memory.
        rewrites: Which exact rewrites the graphs have.
        graphs: Their names; all by default.
    """
    depth = contract.num_layers
    depths = (depth,) if depth <= _DEPTHS[1] else _DEPTHS
    counted = [
        _costs_at(contract, layers, dtype, cache_write, rewrites, graphs) for layers in depths
    ]
    few, more = counted[0], counted[-1]
    return {name: _further(few[name], more[name], depth - depths[-1]) for name in more}


def _costs_at(
    contract: InferenceContract,
    num_layers: int,
    dtype: torch.dtype,
    cache_write: CacheWrite,
    rewrites: Rewrites,
    graphs: Iterable[str] | None,
) -> dict[str, GraphCost]:
    """Return the costs of a model with that many layers."""
    with torch.device("meta"):
        shallow = msgspec.structs.replace(contract, num_layers=num_layers)
        model = RewrittenModel(shallow, rewrites).to(dtype)
    model.eval().requires_grad_(requires_grad=False)
    specs, modules = specs_of(model, cache_write), graph_modules(model, cache_write)
    chosen = specs if graphs is None else graphs
    return {name: _cost(modules[name], specs[name], model) for name in chosen}


def _further(few: GraphCost, more: GraphCost, num_layers: int) -> GraphCost:
    """Return the cost with that many layers more, each adding what the last one added."""
    return GraphCost(
        **{
            name: getattr(more, name) + num_layers * (getattr(more, name) - getattr(few, name))
            for name in GraphCost.__struct_fields__
        }
    )


def _cost(module: nn.Module, spec: GraphSpec, model: MemoryWam) -> GraphCost:
    """Return the cost of one graph."""
    memory = [s for s in spec.inputs if s.name.startswith("memory.")]
    counted = [_counted(module, spec, rows) for rows in (_ROWS if memory else _ROWS[:1])]
    used, flops = counted[0]
    per_row = 0
    if memory:
        per_row = (counted[1][1] - flops) // (_ROWS[1] - _ROWS[0])
    # The last video layer writes keys and values, and attends to nothing.
    read = memory[:-2] if spec.name == "cache_update" else memory
    return GraphCost(
        weight_bytes=sum(
            parameter.numel() * parameter.element_size()
            for parameter in model.parameters()
            if id(parameter) in used
        ),
        flops=flops - per_row * _ROWS[0] if memory else flops,
        flops_per_row=per_row,
        memory_bytes_per_row=sum(s.bound(rows=1, keys=1).num_bytes for s in read),
    )


def _counted(module: nn.Module, spec: GraphSpec, rows: int) -> tuple[set[int], int]:
    """Return which parameters one call reads, and how many operations it takes."""
    own = next((s.fixed_shape[0] for s in spec.single if s.name == "rope_cos"), 0)
    sizes = {ROWS: rows, KEYS: rows + own}

    def empty(s: TensorSpec) -> torch.Tensor:
        shape = s.bound(**sizes).fixed_shape
        return torch.empty(shape, dtype=TORCH_DTYPES[s.dtype], device="meta")

    single = [empty(s) for s in spec.single]
    lists = [[empty(s) for s in specs] for specs in spec.lists]
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _Reads() as reads:
        module(*single, *lists)
    return reads.seen, counter.get_total_flops()


class _Reads(TorchDispatchMode):
    """Notes every tensor that an operation takes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[int] = set()
        self._alive: list[torch.Tensor] = []  # an id is only an id while its tensor lives

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's signature
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Note the tensors, then do as asked."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, nn.Parameter):
                self._alive.append(leaf)
                self.seen.add(id(leaf))
        return func(*args, **(kwargs or {}))
