"""One ONNX graph to one engine: the only door to TensorRT and to TensorRT for RTX."""

import contextlib
import ctypes
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from memorywam_export.engines.engine_attention import (
    drop_softmax_precision,
    prepare_attention,
    scales_in,
)
from memorywam_export.engines.engine_audit import Layer, Tensor
from memorywam_export.engines.engine_lone import spell_out
from memorywam_runtime.errors import BundleError, InputError, MissingPartError
from memorywam_runtime.tensors import TensorSpec

__all__ = ["FLAVOURS", "Compiler", "Flavour", "Network", "Shapes", "device_target"]

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Smallest, optimal and largest shape of one input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """All in which the two backends differ here."""

    module: str
    crosses: bool
    """Builds for architectures that this machine has not, and without any GPU."""
    has_timing_cache: bool
    """Measures kernels while it builds. TensorRT-RTX does so on the device: its timing cache is
    deprecated since 1.2, and its operations do nothing."""
    takes_lone_weights: bool
    """Takes weights in 8 bits beside wide activations. TensorRT proper quantizes both operands of a
    product or neither; its documentation names int4 alone for weights."""
    remedy: str


FLAVOURS = {
    "tensorrt-rtx": Flavour(
        module="tensorrt_rtx",
        crosses=True,
        has_timing_cache=False,
        takes_lone_weights=True,
        remedy="pip install 'memorywam[tensorrt-rtx]'",
    ),
    "tensorrt": Flavour(
        module="tensorrt",
        crosses=False,
        has_timing_cache=True,
        takes_lone_weights=False,
        remedy=(
            "on a Jetson it comes with JetPack (apt install tensorrt, and a virtual environment "
            "made with --system-site-packages); elsewhere pip install tensorrt, which fetches from "
            "the vendor's own index; for RTX cards without either, use --backend tensorrt-rtx"
        ),
    ),
}


class Compiler:
    """One backend's compiler, loaded."""

    def __init__(self, backend: str) -> None:
        """Load it.

        Raises:
            MissingPartError: it is not installed here; says how to get it.
        """
        self.flavour = FLAVOURS[backend]
        try:
            self._trt: Any = importlib.import_module(self.flavour.module)
        except ImportError as error:
            raise MissingPartError(
                f"backend '{backend}' cannot be loaded: {error}; {self.flavour.remedy}"
            ) from error
        self.backend = backend
        self.version = str(self._trt.__version__)

    def check_device(self, target: str) -> None:
        """Refuse a target that is not this machine's, if the backend builds for no other.

        Raises:
            InputError: says what is present, and what to do.
        """
        present = device_target()
        if not self.flavour.crosses and target != present:
            raise InputError(
                f"found target {target}, and {present or 'no GPU'} in this machine; {self.backend} "
                "builds for the GPU that is present alone: build on the device itself, or use "
                "--backend tensorrt-rtx for the RTX cards it knows"
            )

    def network(
        self, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> "Network":
        """Read a graph into a strongly typed network: its element types are the engine's.

        Args:
            path: The ONNX file; its weights are beside it.
            inputs: Shapes to give its inputs; a size that is still a name stays open.
            outputs: Likewise.

        Raises:
            BundleError: the backend cannot read it, with the backend's own words.
        """
        model = _bound(path, inputs, outputs)
        if not self.flavour.takes_lone_weights:
            spell_out(model, path.parent)
        return Network(self._trt, self.flavour, path, bytes(model.SerializeToString()))

    def information(self, content: memoryview) -> str | None:
        """Return what the engine's own inspector says as JSON, or None without its device."""
        runtime = self._trt.Runtime(_logger(self._trt, []))
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            return None
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))


class Network:
    """One graph as the backend reads it, ready to be looked at and built."""

    def __init__(self, trt: Any, flavour: Flavour, path: Path, model: bytes) -> None:  # noqa: ANN401
        self._trt, self._flavour, self._path = trt, flavour, path
        self._messages: list[str] = []
        self._builder = trt.Builder(_logger(trt, self._messages))
        # TensorRT 10 chooses types itself unless it is told not to; later ones know no other way.
        strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self._network = self._builder.create_network(strongly_typed)
        self._parser = trt.OnnxParser(self._network, self._builder.logger)
        if not self._parser.parse(model, str(path)):
            errors = (self._parser.get_error(i) for i in range(self._parser.num_errors))
            said = "; ".join(f"{e.node_operator()} '{e.node_name()}': {e.desc()}" for e in errors)
            raise BundleError(
                f"{path}: {flavour.module} {trt.__version__} cannot read this graph ({said}); "
                "expected operators and shapes that it has: export again with another --opset"
            )
        # What the rewrite adds must live as long as the network.
        self._constants = prepare_attention(trt, self._network, scales_in(model))

    def layers(self) -> list[Layer]:
        """Return every layer, in the network's order."""
        return [_layer(self._network.get_layer(i)) for i in range(self._network.num_layers)]

    def inputs(self) -> list[Tensor]:
        """Return the inputs in the network's order."""
        return [_tensor(self._network.get_input(i)) for i in range(self._network.num_inputs)]

    def outputs(self) -> list[Tensor]:
        """Return the outputs in the network's order."""
        return [_tensor(self._network.get_output(i)) for i in range(self._network.num_outputs)]

    def build(
        self,
        targets: Sequence[str],
        *,
        profile: Mapping[str, Shapes] | None = None,
        workspace_bytes: int | None = None,
        timing_cache: bytearray | None = None,
    ) -> memoryview:
        """Compile the network.

        Args:
            targets: Architectures, as `sm_89`; looked at where the backend builds for others.
            profile: Shapes of the inputs with open sizes.
            workspace_bytes: Limit of the device memory that one kernel may use aside.
            timing_cache: Read, then replaced by what was measured, where the backend has one.

        Returns:
            The engine's bytes.

        Raises:
            InputError: a target that the backend does not build for.
            BundleError: the backend does not compile it, with the backend's own words.
        """
        config = self._config(targets, profile or {}, workspace_bytes)
        cache = None
        if timing_cache is not None and self._flavour.has_timing_cache:
            cache = config.create_timing_cache(bytes(timing_cache))
            config.set_timing_cache(cache, False)  # noqa: FBT003 - the vendor's signature
        self._messages.clear()
        with _captured_stdout() as printed:
            content = self._builder.build_serialized_network(self._network, config)
            said = "; ".join(self._messages) or printed()[-2000:]
        if content is None:
            raise BundleError(
                f"{self._path}: {self._flavour.module} {self._trt.__version__} does not compile "
                f"this graph for {', '.join(targets)}: {said or 'it gives no reason'}"
            )
        if cache is not None and timing_cache is not None:
            timing_cache[:] = bytes(config.get_timing_cache().serialize())
        return memoryview(content)

    def _config(
        self, targets: Sequence[str], profile: Mapping[str, Shapes], workspace_bytes: int | None
    ) -> Any:  # noqa: ANN401 - the vendor's object
        """Return the builder's configuration; precision is the network's, never a flag here."""
        trt = self._trt
        config = self._builder.create_builder_config()
        # So that the inspector on the device names every layer with its types.
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if self._flavour.crosses:
            config.num_compute_capabilities = len(targets)
            for index, target in enumerate(targets):
                _set_target(trt, config, target, index)
        if workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
        if profile:
            made = self._builder.create_optimization_profile()
            for name, shapes in profile.items():
                made.set_shape(name, *shapes)
            if config.add_optimization_profile(made) < 0:
                raise BundleError(
                    f"{self._path}: {self._flavour.module} refuses the profile {dict(profile)}: "
                    f"{'; '.join(self._messages)}"
                )
        return config


def device_target() -> str | None:
    """Return the architecture of this machine's first GPU as `sm_89`, or None without one."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, numbers = ctypes.c_int(), [ctypes.c_int(), ctypes.c_int()]
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
    for number, attribute in zip(numbers, (75, 76), strict=True):
        if cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return None
    return f"sm_{numbers[0].value}{numbers[1].value}"


def _set_target(trt: Any, config: Any, target: str, index: int) -> None:  # noqa: ANN401
    """Ask for one architecture."""
    capability = getattr(trt.ComputeCapability, target.replace("sm_", "SM"), None)
    if capability is None or not config.set_compute_capability(capability, index):
        raise InputError(
            f"found target {target}; {trt.__name__} {trt.__version__} builds for "
            f"{', '.join(name for name in dir(trt.ComputeCapability) if name.startswith('SM'))}"
        )


def _bound(
    path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> onnx.ModelProto:
    """Return the model without its weights, its inputs and outputs in the shapes of the specs."""
    model = onnx.load(str(path), load_external_data=False)
    shapes = {spec.name: spec.shape for spec in (*inputs, *outputs)}
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, shapes.get(value.name, ()), strict=False):
            if isinstance(size, int) and dim.dim_param:
                dim.dim_value = size  # of a union: this clears the name
    drop_softmax_precision(model)
    # Shapes in between were inferred with the open sizes, and would contradict.
    del model.graph.value_info[:]
    return model


def _logger(trt: Any, messages: list[str]) -> Any:  # noqa: ANN401 - the vendor's classes
    """Return a logger that keeps errors, for the exception that tells them."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            # Without a GPU every error is followed by one that says so, which is no reason.
            if severity <= trt.ILogger.ERROR and "catchCudaError" not in message:
                messages.append(message)

    return Logger()


def _layer(layer: Any) -> Layer:  # noqa: ANN401 - the vendor's object
    """Describe a layer."""
    found = (layer.get_input(i) for i in range(layer.num_inputs))
    return Layer(
        name=layer.name,
        kind=layer.type.name,
        inputs=tuple(_tensor(tensor) for tensor in found if tensor is not None),
        outputs=tuple(_tensor(layer.get_output(i)) for i in _outputs(layer)),
        kernel_elements=_kernel_elements(layer),
    )


def _kernel_elements(layer: Any) -> int:  # noqa: ANN401 - the vendor's object
    """Return how many weights a convolution holds itself; elsewhere weights are inputs."""
    if layer.type.name not in ("CONVOLUTION", "DECONVOLUTION"):
        return 0
    module = importlib.import_module(type(layer).__module__)
    layer.__class__ = getattr(module, f"I{layer.type.name.capitalize()}Layer")
    return int(layer.kernel.size) if layer.num_inputs == 1 else 0


def _tensor(tensor: Any) -> Tensor:  # noqa: ANN401 - the vendor's object
    return Tensor(name=tensor.name, shape=tuple(tensor.shape), dtype=tensor.dtype.name)


def _outputs(layer: Any) -> range:  # noqa: ANN401 - the vendor's object
    return range(layer.num_outputs)


@contextlib.contextmanager
def _captured_stdout() -> Iterator[Callable[[], str]]:
    """Catch what the compiler prints past Python: a verb's standard output is its JSON alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile() as file:

        def printed() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        os.dup2(file.fileno(), 1)
        try:
            yield printed
        finally:
            os.dup2(kept, 1)
            os.close(kept)
