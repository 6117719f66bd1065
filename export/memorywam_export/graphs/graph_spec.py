"""GraphSpec: one graph's tensors, in the order in which its module takes and gives them."""

from dataclasses import dataclass, field

from memorywam_runtime.tensors import TensorSpec

__all__ = ["GraphSpec"]


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
