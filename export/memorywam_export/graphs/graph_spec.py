"""GraphSpec: one graph's tensors, in the order in which its module takes and gives them."""

from dataclasses import dataclass, field

import torch

from memorywam_runtime.tensors import DType, TensorSpec

__all__ = ["TORCH_DTYPES", "GraphSpec"]

TORCH_DTYPES: dict[DType, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
}
"""What a graph's tensors are in torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSpec:
    """One graph: single tensors, then lists of tensors, in the order of the module's arguments."""

    name: str
    single: tuple[TensorSpec, ...]
    lists: tuple[tuple[TensorSpec, ...], ...] = ()
    outputs: tuple[TensorSpec, ...] = field(default=())

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """All inputs, flat."""
        return (*self.single, *(spec for specs in self.lists for spec in specs))
