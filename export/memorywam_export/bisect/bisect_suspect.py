"""One ONNX file of a bundle, run on ONNX Runtime up to any of the values inside it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import onnx
from onnx import helper

from memorywam_export.parity.trace_report import Array, Tensors
from memorywam_runtime.backends import Backend
from memorywam_runtime.errors import BundleError
from memorywam_runtime.manifest import GraphEntry
from memorywam_runtime.tensors import DType, TensorSpec, decoded, encoded, storage_dtype

__all__ = ["Exposed", "Suspect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposed:
    """A value to look at, as an output of the graph."""

    name: str
    shape: tuple[int, ...]
    dtype: DType

    @property
    def spec(self) -> TensorSpec:
        """Return it as an output is described."""
        return TensorSpec(name=self.name, shape=self.shape, dtype=self.dtype, meaning="looked at")


class Suspect:
    """A graph of a bundle, as its file has it.

    A run gets a file with what the wanted values are made of, and nothing else: ONNX Runtime then
    optimizes that at the level that it is deployed with (all), but a value that is given out is
    not fused away, and sizes that are open in the bundle are those of the inputs.
    """

    def __init__(
        self, root: Path, entry: GraphEntry, inputs: Mapping[str, Array], folder: Path
    ) -> None:
        """Read the file; its weights are read by ONNX Runtime.

        Args:
            root: The bundle.
            entry: The graph's, in its manifest.
            inputs: Numbers for every input of the graph.
            folder: For edited files, with a copy of the bundle's weights beside them: ONNX Runtime
                refuses weights outside of a model's folder, also behind a symbolic link, and
                onnx-ir those that have a second, hard link.
        """
        self.model = onnx.load(root / entry.file, load_external_data=False)
        self.entry = entry
        self.folder = folder
        self._inputs = inputs
        self.producers = {name: node for node in self.model.graph.node for name in node.output}

    @property
    def values(self) -> list[str]:
        """All that nodes make, in the graph's order."""
        return [name for node in self.model.graph.node for name in node.output if name]

    def direct_parents(self, name: str, among: set[str]) -> list[str]:
        """Return the nearest values that one is made of, of those in a set."""
        return [value for value in self._walk([name], among) if value in among]

    def nodes_between(self, name: str, among: set[str]) -> list[onnx.NodeProto]:
        """Return the nodes that make a value from the nearest values in a set, in order."""
        passed = {name, *self._walk([name], among)} - (among - {name})
        return [node for node in self.model.graph.node if passed & set(node.output)]

    def cut(self, names: Sequence[Exposed]) -> tuple[onnx.ModelProto, GraphEntry]:
        """Return a model that makes some values, and its tensors.

        Args:
            names: The values, in the order in which they are given out.
        """
        graph = self.model.graph
        reached = {e.name for e in names} | set(self._walk([e.name for e in names], set()))
        nodes = [node for node in graph.node if reached & set(node.output)]
        read = {name for node in nodes for name in node.input}
        inputs = tuple(
            msgspec.structs.replace(spec, shape=self._inputs[spec.name].shape)
            for spec in self.entry.inputs
            if spec.name in read
        )
        outputs = tuple(e.spec for e in names)
        made = helper.make_graph(
            nodes,
            graph.name,
            [_value_info(spec) for spec in inputs],
            [_value_info(spec) for spec in outputs],
            [tensor for tensor in graph.initializer if tensor.name in read],
        )
        model = helper.make_model(
            made, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )
        return model, GraphEntry(file="looked_at.onnx", inputs=inputs, outputs=outputs)

    def run(self, names: Sequence[Exposed], backend: Backend) -> Tensors:
        """Return values as ONNX Runtime makes them.

        Args:
            names: The values.
            backend: ONNX Runtime's.

        Raises:
            BundleError: what they are made of cannot be loaded or run.
        """
        model, entry = self.cut(names)
        path = self.folder / entry.file
        onnx.save(model, path)
        arrays = {s.name: encoded(self._inputs[s.name], s.dtype) for s in entry.inputs}
        outputs = {spec.name: spec.zeros() for spec in entry.outputs}
        self._bound(path, entry, arrays, outputs, backend)
        return {e.name: decoded(outputs[e.name], e.dtype) for e in names}

    def run_whole(self, root: Path, backend: Backend) -> Tensors:
        """Return the outputs of the bundle's own file, bound as a session binds it.

        Args:
            root: The bundle.
            backend: ONNX Runtime's.

        Raises:
            BundleError: it cannot be loaded or run.
        """
        sizes = {
            size: n
            for spec in self.entry.inputs
            for size, n in zip(spec.shape, self._inputs[spec.name].shape, strict=True)
            if isinstance(size, str)
        }
        arrays = {s.name: encoded(self._inputs[s.name], s.dtype) for s in self.entry.inputs}
        outputs = {
            # What is written in place is one array, bound as input and output.
            s.name: arrays[s.name.replace("memory_out.", "memory.", 1)]
            if s.name.startswith("memory_out.")
            else s.bound(**sizes).zeros()
            for s in self.entry.outputs
        }
        self._bound(root / self.entry.file, self.entry, arrays, outputs, backend)
        return {s.name: decoded(outputs[s.name], s.dtype) for s in self.entry.outputs}

    def _bound(
        self,
        path: Path,
        entry: GraphEntry,
        inputs: Tensors,
        outputs: Tensors,
        backend: Backend,
    ) -> None:
        """Load a file and run it once."""
        try:
            backend.load(path, entry).bind(inputs, outputs)()
        except BundleError:
            raise
        except Exception as error:  # onnxruntime raises bare exceptions of its own
            raise BundleError(
                f"found that {self.entry.file} cannot be run: {error}; expected values for "
                f"{', '.join([*outputs][:3])}: export the checkpoint again"
            ) from error

    def _walk(self, names: Iterable[str], stop: set[str]) -> list[str]:
        """Return all values above some, not beyond those in a set."""
        found: dict[str, None] = {}
        left = [v for name in names for v in self._made_of(name)]
        while left:
            name = left.pop()
            if name in found:
                continue
            found[name] = None
            if name not in stop:
                left += self._made_of(name)
        return [name for name in self.values if name in found]

    def _made_of(self, name: str) -> list[str]:
        """Return the inputs of the node that makes a value, less weights and the graph's inputs."""
        node = self.producers.get(name)
        return [] if node is None else [v for v in node.input if v in self.producers]


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    """Return how ONNX describes a tensor."""
    kind = (
        onnx.TensorProto.BFLOAT16
        if spec.dtype == "bfloat16"
        else helper.np_dtype_to_tensor_dtype(storage_dtype(spec.dtype))
    )
    return helper.make_tensor_value_info(spec.name, kind, spec.fixed_shape)
