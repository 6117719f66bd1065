"""ONNX Runtime on the CPU: graphs run on bound host buffers, memory is written in place."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from memorywam_runtime.backends.host import HostArrays
from memorywam_runtime.errors import BundleError
from memorywam_runtime.manifest import GraphEntry
from memorywam_runtime.tensors import check_names, storage_dtype

__all__ = ["OrtBackend"]

_ORT_TYPES = {
    "float64": "tensor(double)",
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "bfloat16": "tensor(bfloat16)",
    "int64": "tensor(int64)",
}


class OrtRun:
    """One IOBinding; running it allocates no tensor that crosses the graph's edge."""

    def __init__(
        self, session: ort.InferenceSession, binding: ort.IOBinding, arrays: list[Any]
    ) -> None:
        self._session = session
        self._binding = binding
        self._arrays = arrays  # the binding holds bare pointers: keep their owners alive

    def __call__(self) -> None:
        """Run on what is in the bound arrays now."""
        self._session.run_with_iobinding(self._binding)


class OrtEngine:
    """One ONNX graph in an inference session."""

    def __init__(self, session: ort.InferenceSession, entry: GraphEntry) -> None:
        self._session = session
        self._inputs = {spec.name: spec for spec in entry.inputs}
        self._outputs = {spec.name: spec for spec in entry.outputs}

    def bind(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> OrtRun:
        """Prepare a call on these arrays; they must be C-contiguous and stay where they are."""
        check_names(inputs, self._inputs, "inputs to bind")
        check_names(outputs, self._outputs, "outputs to bind")
        binding = self._session.io_binding()
        for name, array in inputs.items():
            self._inputs[name].validate(array)
            binding.bind_input(name, "cpu", 0, _element(array), array.shape, array.ctypes.data)
        for name, array in outputs.items():
            self._outputs[name].validate(array)
            binding.bind_output(name, "cpu", 0, _element(array), array.shape, array.ctypes.data)
        return OrtRun(self._session, binding, [*inputs.values(), *outputs.values()])


class OrtBackend(HostArrays):
    """ONNX Runtime's CPU provider."""

    name = "ort"

    def __init__(self, num_threads: int = 0, *, spin: bool = True) -> None:
        """Make a backend.

        Args:
            num_threads: Threads inside one operator; 0 lets ONNX Runtime choose.
            spin: Let idle threads spin: faster, but they starve other work on the same cores.
        """
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = num_threads
        self._options.log_severity_level = 3
        self._options.add_session_config_entry(
            "session.intra_op.allow_spinning", "1" if spin else "0"
        )

    def load(self, path: Path, entry: GraphEntry) -> OrtEngine:
        """Load one graph and compare its tensors with the manifest's."""
        try:
            session = ort.InferenceSession(
                str(path), self._options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises bare exceptions of its own
            raise BundleError(
                f"onnxruntime {ort.__version__} cannot load {path.name}: {error}; "
                "export with --precision fp32 or fp16 for the CPU, or with a lower --opset"
            ) from error
        for kind, found, specs in (
            ("inputs", session.get_inputs(), entry.inputs),
            ("outputs", session.get_outputs(), entry.outputs),
        ):
            have = [(node.name, node.type, _sizes(node.shape)) for node in found]
            want = [(spec.name, _ORT_TYPES[spec.dtype], _sizes(spec.shape)) for spec in specs]
            if sorted(have) != sorted(want):
                different = sorted(set(have) ^ set(want))
                raise BundleError(
                    f"{path.name}: its {kind} are not those of the manifest; they differ in "
                    f"{different[:4]}: export the checkpoint again"
                )
        return OrtEngine(session, entry)


def _sizes(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    """Return a shape with -1 for every size that is bound at run time."""
    return tuple(size if isinstance(size, int) else -1 for size in shape)


def _element(array: NDArray[Any]) -> object:
    """Return the element type that onnxruntime binds."""
    if array.dtype == storage_dtype("bfloat16"):
        return 16  # TensorProto.BFLOAT16
    return np.dtype(array.dtype).type
