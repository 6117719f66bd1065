"""One TensorRT engine: checked against the manifest, and bound to tensors on the GPU."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from memorywam_runtime.backends.cuda import Device, Memory
from memorywam_runtime.backends.device_arrays import DeviceArray
from memorywam_runtime.errors import BundleError, DeviceError, InputError, MemorywamError
from memorywam_runtime.files import atomic_write
from memorywam_runtime.manifest import GraphEntry
from memorywam_runtime.tensors import check_names

__all__ = ["Host", "TrtEngine", "TrtRun", "Vendor"]

Vendor = Any
"""An object of TensorRT's, of either flavour: neither can be relied on to bring its types."""

_LOG = logging.getLogger("memorywam.tensorrt")
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT8": "int8",
    "FP8": "float8e4m3fn",
}
_ALIGNMENT_BYTES = 256
_CACHE_SUFFIX = ".cache"


class Host(Protocol):
    """What an engine needs of the backend that loaded it."""

    device: Device
    library: Vendor
    """The package, of either flavour."""

    @property
    def last_error(self) -> str:
        """What TensorRT complained of last, or nothing."""
        ...

    def forget_errors(self) -> None:
        """Start to listen for complaints anew."""

    def scratch(self) -> Memory:
        """Return memory for what engines compute in between."""
        ...


class TrtRun:
    """One execution context: shapes and addresses are set, running it sets nothing."""

    __slots__ = ("_context", "_graph", "_held", "_host")

    def __init__(self, host: Host, graph: str, context: Vendor, held: tuple[Any, ...]) -> None:
        self._host = host
        self._graph = graph
        self._context = context
        self._held = held  # the context knows bare addresses: keep what they point into

    def __call__(self) -> None:
        """Enqueue on what is in the bound arrays now; return at once.

        Raises:
            DeviceError: TensorRT refuses.
        """
        if not self._context.execute_async_v3(self._host.device.handle):
            raise DeviceError(
                f"graph '{self._graph}': TensorRT refused to enqueue ({self._host.last_error}); "
                "expected it to run: build the engine again on this machine"
            )

    def why_not_captured(self) -> str:
        """Return why this run cannot be part of a graph; empty if it can."""
        if _is_capturable(self._context, self._host.device.handle):
            return ""
        return f"graph '{self._graph}': TensorRT says that it cannot be captured"


class TrtEngine:
    """One deserialized engine; its contexts share its weights and the backend's scratch memory."""

    def __init__(self, host: Host, engine: Vendor, path: Path, entry: GraphEntry) -> None:
        """Check an engine.

        Args:
            host: The backend that loaded it.
            engine: As the library deserialized it.
            path: Where it was read from; its stem names the graph.
            entry: What the manifest says of the graph.

        Raises:
            BundleError: its tensors are not those of the manifest.
        """
        self._host = host
        self._graph = path.stem
        self._inputs = {spec.name: spec for spec in entry.inputs}
        self._outputs = {spec.name: spec for spec in entry.outputs}
        self._engine = engine
        self._check_tensors(path)
        self._cache_path = path.with_name(path.name + _CACHE_SUFFIX)
        self._config, self._cache = _runtime_config(host.library, engine, self._cache_path)
        self.scratch_bytes = int(engine.device_memory_size_v2)
        """Memory that a context computes in, bytes: enough for every profile."""

    def bind(self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> TrtRun:
        """Prepare a call in a context of its own.

        A captured graph uses what its context holds, not only the addresses that were set when it
        was captured: contexts that took turns would change each other's graphs.

        Raises:
            InputError: a name is missing or left over, a shape is in no profile, an address is not
                aligned, or an array is both input and output where the engine does not write in
                place, or only one of them where it does.
            DeviceError: TensorRT refuses a context.
        """
        check_names(inputs, self._inputs, "inputs to bind")
        check_names(outputs, self._outputs, "outputs to bind")
        self._check_arrays(inputs, outputs)
        self._host.forget_errors()
        scratch = self._host.scratch()
        context = _new_context(self._host.library, self._engine, self._config)
        if context is None:
            raise self._refused("to make a context")
        context.set_device_memory(scratch.address, scratch.num_bytes)
        self._set_shapes(context, {name: array.shape for name, array in inputs.items()})
        for name, array in (*inputs.items(), *outputs.items()):
            if not context.set_tensor_address(name, array.address):
                raise self._refused(f"the address of '{name}'")
        if unset := list(context.infer_shapes()):
            raise self._refused(f"shapes, for lack of {unset}")
        for name, array in outputs.items():
            found = tuple(context.get_tensor_shape(name))
            if found != array.shape:
                raise InputError(
                    f"graph '{self._graph}': the engine gives '{name}' as {list(found)}; expected "
                    f"{list(array.shape)}: build the engines of this bundle again"
                )
        if self._host.last_error:
            raise self._refused("a binding")
        held = (self, scratch, *inputs.values(), *outputs.values())
        return TrtRun(self._host, self._graph, context, held)

    def save_cache(self) -> Path | None:
        """Write what TensorRT for RTX has compiled so far beside the engine, for later starts.

        Returns:
            The file; None where this flavour keeps none, it is as it was, or cannot be written.
        """
        if self._cache is None:
            return None
        content = bytes(memoryview(self._cache.serialize()))
        try:
            if self._cache_path.is_file() and self._cache_path.read_bytes() == content:
                return None
            atomic_write(self._cache_path, content)
        except (OSError, MemorywamError) as error:
            _LOG.warning("kernels are compiled anew at every start: %s", error)
            return None
        return self._cache_path

    def _check_tensors(self, path: Path) -> None:
        """Compare the engine's tensors with the manifest's.

        Raises:
            BundleError: naming those that differ.
        """
        found = {_described(self._engine, index) for index in range(self._engine.num_io_tensors)}
        fixed = {name: shape for name, _, _, shape, _ in found}
        want = {
            (spec.name, mode, spec.dtype, _sizes(spec.shape, fixed.get(spec.name, ())), "DEVICE")
            for mode, specs in (("INPUT", self._inputs), ("OUTPUT", self._outputs))
            for spec in specs.values()
        }
        if found != want:
            raise BundleError(
                f"{path.name}: its tensors are not those of the manifest; they differ in "
                f"{sorted(found ^ want)[:4]}: build the engines of this bundle again"
            )

    def _check_arrays(
        self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> None:
        """Refuse arrays of another shape or type, misaligned, or wrongly shared."""
        specs = self._inputs | self._outputs
        for name, array in (*inputs.items(), *outputs.items()):
            specs[name].validate(array)  # type: ignore[arg-type]  # has the shape and dtype it reads
            if array.address % _ALIGNMENT_BYTES:
                raise InputError(
                    f"graph '{self._graph}': tensor '{name}' starts at address {array.address:#x}; "
                    f"TensorRT expects a multiple of {_ALIGNMENT_BYTES} bytes: let views of a "
                    "buffer start there"
                )
        owners = {array.address: name for name, array in inputs.items()}
        for name, array in outputs.items():
            shared, written = owners.get(array.address), _in_place_of(self._engine, name)
            if shared != written:
                raise InputError(
                    f"graph '{self._graph}': output '{name}' was given the memory of "
                    f"{shared or 'no input'}; the engine writes it in place of "
                    f"{written or 'no input'}: build the engines of this bundle again, or export "
                    "with --opset 20 where this TensorRT cannot write in place"
                )

    def _set_shapes(self, context: Vendor, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Choose the profile and set every input's shape."""
        profile, device = self._profile(shapes), self._host.device
        if profile != context.active_optimization_profile:
            if not context.set_optimization_profile_async(profile, device.handle):
                raise self._refused(f"profile {profile}")
            device.wait()
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise self._refused(f"shape {list(shape)} of input '{name}'")

    def _profile(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Return the profile that takes these shapes and was tuned nearest to them.

        Raises:
            InputError: none takes them.
        """
        dynamic = {
            name: shape
            for name, shape in shapes.items()
            if -1 in self._engine.get_tensor_shape(name)
        }
        best: tuple[int, int] | None = None
        ranges = []
        for index in range(self._engine.num_optimization_profiles):
            distance, fits = 0, True
            for name, shape in dynamic.items():
                low, tuned, high = self._engine.get_tensor_profile_shape(name, index)
                fits &= all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))
                distance += abs(math.prod(tuned) - math.prod(shape))
                ranges.append(f"'{name}' {list(low)} to {list(high)}")
            if fits and (best is None or (distance, index) < best):
                best = (distance, index)
        if best is None:
            raise InputError(
                f"graph '{self._graph}': found shapes {dynamic}; expected those of a profile, "
                f"{'; '.join(ranges[:4])}: build the engines for this bundle's gist buckets"
            )
        return best[1]

    def _refused(self, what: str) -> DeviceError:
        """Return the error for something that TensorRT did not take."""
        return DeviceError(
            f"graph '{self._graph}': TensorRT refused {what} ({self._host.last_error}); expected "
            "an engine of this bundle: build it again on this machine"
        )


# What differs between the flavours and from TensorRT 10.3 to 11 is below, and nowhere else.


def _runtime_config(library: Vendor, engine: Vendor, cache_path: Path) -> tuple[Vendor, Vendor]:
    """Return how TensorRT for RTX runs an engine, and its cache of compiled kernels; else None.

    Kernels for the bound shapes are compiled before the first run and not behind its back: a
    captured graph would keep the slow ones that it starts with. It captures no graphs of its own:
    the sequences are captured.
    """
    if not hasattr(library, "IRuntimeCache"):
        return None, None
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(
        library.ExecutionContextAllocationStrategy.USER_MANAGED
    )
    config.cuda_graph_strategy = library.CudaGraphStrategy.DISABLED
    config.dynamic_shapes_kernel_specialization_strategy = (
        library.DynamicShapesKernelSpecializationStrategy.EAGER
    )
    cache = config.create_runtime_cache()
    if cache_path.is_file() and not cache.deserialize(cache_path.read_bytes()):
        _LOG.warning("%s is of another version or GPU: kernels are compiled anew", cache_path)
    config.set_runtime_cache(cache)
    return config, cache


def _new_context(library: Vendor, engine: Vendor, config: Vendor) -> Vendor:
    """Return an execution context that allocates nothing, or None."""
    if config is not None:
        return engine.create_execution_context(config)
    strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
    return engine.create_execution_context(strategy)


def _in_place_of(engine: Vendor, output: str) -> str | None:
    """Return the input whose memory an output takes, if any; TensorRT 10.3 knows of none."""
    ask = getattr(engine, "get_aliased_input_tensor", None)
    return (ask(output) or None) if ask is not None else None


def _is_capturable(context: Vendor, stream: int) -> bool:
    """Ask TensorRT for RTX whether a run can be captured; the other tells by failing."""
    ask = getattr(context, "is_stream_capturable", None)
    return True if ask is None else bool(ask(stream))


def _described(engine: Vendor, index: int) -> tuple[str, str, str, tuple[int, ...], str]:
    """Return name, mode, type, sizes and place of one of an engine's tensors."""
    name = engine.get_tensor_name(index)
    dtype = engine.get_tensor_dtype(name).name
    return (
        name,
        engine.get_tensor_mode(name).name,
        str(_DTYPES.get(dtype, dtype)),
        tuple(engine.get_tensor_shape(name)),
        engine.get_tensor_location(name).name,
    )


def _sizes(shape: Sequence[int | str], found: Sequence[int]) -> tuple[int, ...]:
    """Return a shape with -1 for every open size, or what an engine has fixed it at.

    An engine that writes memory in place is built for the rows of one bucket.
    """
    given = found if len(found) == len(shape) else (-1,) * len(shape)
    return tuple(
        size if isinstance(size, int) else fixed for size, fixed in zip(shape, given, strict=True)
    )
