"""What every value inside a graph must be: torch on the graph's own trace, in float64."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.node import map_aggregate

from memorywam_export.eager.torch_arrays import tensor_from_array
from memorywam_export.graphs.graph_spec import TORCH_DTYPES, GraphSpec
from memorywam_export.graphs.onnx_writer import exported

__all__ = ["GraphTruth", "Place", "Tensor"]

Tensor = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in the model a value is made."""

    layer: str
    """In words: `action, block 3, self_attn.q`."""
    operator: str
    """Torch's: `aten.linear.default`."""
    source: str
    """The line of the model: `blocks.py:55: q, k, v = ...`; empty where torch knows none."""


class GraphTruth:
    """One graph's module, traced as its export traced it, and run value by value.

    The exporter names ONNX values after the nodes of the trace, so that the same trace, made
    again, finds them again. It is run twice: on weights of float64 with every type of the trace
    widened to it, which is the truth; and in the bundle's type, which says how much of an error
    is mere rounding.
    """

    def __init__(self, exact: nn.Module, rounded: nn.Module, spec: GraphSpec, opset: int) -> None:
        """Trace a graph.

        Args:
            exact: Its module in float64.
            rounded: Its module in the bundle's type.
            spec: Its tensors in the bundle's type.
            opset: The bundle's.
        """
        program = exported(rounded, spec, opset).exported_program
        assert program is not None
        self._program = program
        self._spec = spec
        self._exact = dict(exact.state_dict())
        self._nodes = _named_nodes(program, spec)

    @property
    def names(self) -> frozenset[str]:
        """The values that can be compared, by their names in the ONNX graph."""
        return frozenset(self._nodes)

    def place(self, name: str) -> Place:
        """Return where a value is made."""
        node = self._nodes[name][0]
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        return Place(
            layer=_layer_in_words(stack[-1][0] if stack else ""),
            operator=str(node.target),
            source=_source_line(node.meta.get("stack_trace") or ""),
        )

    @torch.no_grad()
    def shapes(self, inputs: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and element type of every value in the bundle's type, keeping none.

        Args:
            inputs: The graph's inputs by name; numbers.
        """
        run = _Run(self._program.graph_module, set(), is_exact=False)
        run.run(*_arguments(self._program, self._given(inputs), None))
        found = {}
        for name, (node, part) in self._nodes.items():
            tensor = run.shapes[node.name][part or 0]
            found[name] = (tensor[0], tensor[1])
        return found

    def _given(self, inputs: Mapping[str, Tensor]) -> list[torch.Tensor]:
        """Return the inputs in order, of the bundle's types."""
        return [
            tensor_from_array(np.ascontiguousarray(inputs[s.name])).to(TORCH_DTYPES[s.dtype])
            for s in self._spec.inputs
        ]

    @torch.no_grad()
    def values(
        self, inputs: Mapping[str, Tensor], names: Sequence[str]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return some values: exact (float64), and as torch has them in the bundle's type.

        Args:
            inputs: The graph's inputs by name; numbers.
            names: Of `names`.
        """
        wanted = {self._nodes[name][0].name for name in names}
        given, runs = self._given(inputs), []
        for is_exact in (True, False):
            run = _Run(self._program.graph_module, wanted, is_exact=is_exact)
            run.run(*_arguments(self._program, given, self._exact if is_exact else None))
            runs.append(run.kept)
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name in names:
            node, part = self._nodes[name]
            exact, rounded = (run[node.name] if part is None else run[node.name][part]
                              for run in runs)  # fmt: skip
            found[name] = (exact.numpy(), rounded.numpy())
        return found


class _Run(fx.Interpreter):
    """One run of a trace that keeps the values asked for."""

    def __init__(self, module: fx.GraphModule, wanted: set[str], *, is_exact: bool) -> None:
        super().__init__(module)
        self._wanted = wanted
        self._is_exact = is_exact
        self.kept: dict[str, Any] = {}
        self.shapes: dict[str, list[tuple[tuple[int, ...], str]]] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - whatever a node gives
        """Run one node, and keep a copy: what follows may write in place."""
        result = super().run_node(n)
        tensors = result if isinstance(result, Sequence) else (result,)
        self.shapes[n.name] = [
            (tuple(t.shape), str(t.dtype).removeprefix("torch."))
            for t in tensors
            if isinstance(t, torch.Tensor)
        ]
        if n.name in self._wanted:
            self.kept[n.name] = (
                result.clone() if isinstance(result, torch.Tensor) else [t.clone() for t in result]
            )
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - fx's own
        """Call an operator, in float64 if this is the exact run."""
        name = str(target)
        if "_assert" in name or "sym_constrain" in name:
            return None
        if name.startswith("onnx_symbolic"):
            return _scattered(args)
        if self._is_exact:
            args, kwargs = map_aggregate((args, kwargs), _widened)
        return super().call_function(target, args, kwargs)


def _scattered(args: Sequence[Any]) -> torch.Tensor:
    """Return what TensorScatter gives, the one operator that the trace spells in ONNX."""
    (memory, new, row), kind = args[0], args[1]
    assert kind == "TensorScatter", kind
    written: torch.Tensor = memory.clone()
    first = int(row)
    written[:, :, first : first + new.shape[2]] = new
    return written


def _widened(value: Any) -> Any:  # noqa: ANN401 - any argument of an operator
    """Return float64 for every floating type; everything else as it is."""
    is_float = isinstance(value, torch.dtype) and value.is_floating_point
    return torch.float64 if is_float else value


def _arguments(
    program: ExportedProgram, given: Sequence[torch.Tensor], exact: Mapping[str, Any] | None
) -> list[Any]:
    """Return what the trace's module is called with: weights, constants, inputs.

    Args:
        program: The trace.
        given: The graph's inputs in order, of the bundle's types.
        exact: Weights in float64 by name; None for those of the trace and the bundle's types.
    """

    def typed(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.double() if exact is not None and tensor.is_floating_point() else tensor

    flat = iter(given)
    weights: Mapping[str, Any] = program.state_dict if exact is None else exact
    found: list[Any] = []
    for entry in program.graph_signature.input_specs:
        if entry.kind is InputKind.USER_INPUT:
            found.append(typed(next(flat)))
        elif entry.target in weights:
            found.append(typed(weights[str(entry.target)]))
        else:
            constant = program.constants[str(entry.target)]
            assert isinstance(constant, torch.Tensor)
            found.append(typed(constant))
    return found


def _named_nodes(
    program: ExportedProgram, spec: GraphSpec
) -> dict[str, tuple[fx.Node, int | None]]:
    """Return each value's node by the value's ONNX name; of several results, which one."""
    found: dict[str, tuple[fx.Node, int | None]] = {}
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function":
            continue
        if isinstance(value, torch.Tensor):
            found[node.name] = (node, None)
        elif "split" in str(node.target) and isinstance(value, Sequence):
            for part in range(len(value)):
                found[f"{node.name}_split_{part}"] = (node, part)
    by_name = {node.name: node for node in program.graph.nodes}
    for output, entry in zip(spec.outputs, program.graph_signature.output_specs, strict=True):
        found[output.name] = (by_name[entry.arg.name], None)
    return found


def _layer_in_words(path: str) -> str:
    """Return `action, block 3, self_attn.q` of `action.blocks.3.self_attn.q`."""
    parts = path.removeprefix("model.").removeprefix("mixtures.").split(".")
    if "blocks" not in parts[:-1]:
        return ".".join(parts) or "outside of every layer"
    at = parts.index("blocks")
    rest = [".".join(parts[at + 2 :])] if parts[at + 2 :] else []
    return ", ".join([*parts[:at], f"block {parts[at + 1]}", *rest])


def _source_line(trace: str) -> str:
    """Return the last line of the model's own in a stack trace."""
    lines = trace.splitlines()
    for index in reversed(range(len(lines) - 1)):
        head = lines[index].strip()
        if head.startswith("File ") and "memorywam_export" in head:
            path, number = head.split('"')[1], head.split("line ")[1].split(",")[0]
            return f"{path.rsplit('/', 1)[-1]}:{number}: {lines[index + 1].strip()}"
    return ""
