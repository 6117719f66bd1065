"""The one door to cuda-python: a GPU, the stream that orders its work, its memory, its graphs."""

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import runtime  # pyright: ignore[reportAttributeAccessIssue]
from numpy.typing import NDArray

from memorywam_runtime.errors import DeviceError, MissingPartError

__all__ = ["Device", "Event", "Graph", "Memory", "Pinned"]

_Handle = Any
"""An object of CUDA's, which comes without types."""


class Memory:
    """Device memory, aligned to 256 bytes; freed when nothing refers to it any more."""

    __slots__ = ("__weakref__", "address", "num_bytes")

    def __init__(self, num_bytes: int) -> None:
        """Allocate.

        Raises:
            DeviceError: the device has not that much memory left.
        """
        self.num_bytes = max(num_bytes, 1)
        self.address: int = int(_checked(runtime.cudaMalloc(self.num_bytes)))
        _at_end(self, runtime.cudaFree, self.address)


class Pinned:
    """Host memory that the device copies from and to while the host goes on."""

    __slots__ = ("__weakref__", "address", "array", "num_bytes")

    def __init__(self, num_bytes: int) -> None:
        """Allocate.

        Raises:
            DeviceError: the host cannot pin that much.
        """
        self.num_bytes = num_bytes
        self.address: int = int(
            _checked(runtime.cudaHostAlloc(num_bytes, runtime.cudaHostAllocDefault))
        )
        held = (ctypes.c_uint8 * num_bytes).from_address(self.address)
        self.array: NDArray[np.uint8] = np.ctypeslib.as_array(held)
        """[num_bytes]; not to be used after this object is gone."""
        _at_end(self, runtime.cudaFreeHost, self.address)


class Event:
    """A point in the stream that can be waited for."""

    __slots__ = ("__weakref__", "handle")

    def __init__(self) -> None:
        flags = runtime.cudaEventDisableTiming
        self.handle = _checked(runtime.cudaEventCreateWithFlags(flags))
        _at_end(self, runtime.cudaEventDestroy, self.handle)

    def wait(self) -> None:
        """Wait until the device has passed the point that was recorded last."""
        _checked(runtime.cudaEventSynchronize(self.handle))


class Graph:
    """Work that was captured once; launching it again costs one call."""

    __slots__ = ("__weakref__", "_stream", "handle")

    def __init__(self, captured: object, stream: object) -> None:
        self._stream = stream
        self.handle = _checked(runtime.cudaGraphInstantiate(captured, 0))
        _at_end(self, runtime.cudaGraphExecDestroy, self.handle)

    def launch(self) -> None:
        """Do the captured work on what is in the captured addresses now; do not wait."""
        _checked(runtime.cudaGraphLaunch(self.handle, self._stream))


class Device:
    """One GPU and one stream: all that is asked of it is done in the order of asking.

    CUDA's current device belongs to a thread: on any device but 0, use it from the thread that
    made it.
    """

    def __init__(self, index: int = 0) -> None:
        """Take a GPU.

        Args:
            index: Its number, from 0.

        Raises:
            MissingPartError: no driver, no GPU, or none of this number.
        """
        _check_index(index)
        self.index = index
        _checked(runtime.cudaSetDevice(index))
        major, minor = (
            _checked(runtime.cudaDeviceGetAttribute(attribute, index))
            for attribute in (
                runtime.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor,
                runtime.cudaDeviceAttr.cudaDevAttrComputeCapabilityMinor,
            )
        )
        self.target = f"sm_{major}{minor}"
        """The GPU's architecture, as `sm_89`."""
        # Not ordered after the default stream, on which nothing of ours ever runs.
        self._stream = _checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self.handle = int(self._stream)
        """The stream as the number that other libraries take."""
        _at_end(self, runtime.cudaStreamDestroy, self._stream)

    def upload(self, target: int, source: int, num_bytes: int) -> None:
        """Copy from pinned host memory to the device; do not wait."""
        self._copy(target, source, num_bytes, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def download(self, target: int, source: int, num_bytes: int) -> None:
        """Copy from the device to pinned host memory; do not wait."""
        self._copy(target, source, num_bytes, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def copy(self, target: int, source: int, num_bytes: int) -> None:
        """Copy on the device between places that do not overlap; do not wait."""
        self._copy(target, source, num_bytes, runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice)

    def copy_strided(
        self,
        target: int,
        target_pitch: int,
        source: int,
        source_pitch: int,
        *,
        width: int,
        height: int,
    ) -> None:
        """Copy `height` pieces of `width` bytes that lie a pitch apart, bytes; do not wait."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        _checked(
            runtime.cudaMemcpy2DAsync(
                target, target_pitch, source, source_pitch, width, height, kind, self._stream
            )
        )

    def zero(self, address: int, num_bytes: int) -> None:
        """Fill with zeros; do not wait."""
        _checked(runtime.cudaMemsetAsync(address, 0, num_bytes, self._stream))

    def zero_strided(self, address: int, pitch: int, *, width: int, height: int) -> None:
        """Fill `height` pieces of `width` bytes that lie a pitch apart, bytes; do not wait."""
        _checked(runtime.cudaMemset2DAsync(address, pitch, 0, width, height, self._stream))

    def record(self, event: Event) -> None:
        """Let an event stand for all that was asked so far."""
        _checked(runtime.cudaEventRecord(event.handle, self._stream))

    def wait(self) -> None:
        """Wait until all that was asked is done.

        Raises:
            DeviceError: some of it failed.
        """
        _checked(runtime.cudaStreamSynchronize(self._stream))

    def capture(self, call: Callable[[], None]) -> Graph:
        """Record what a call asks of the stream, without doing it.

        Raises:
            DeviceError: it cannot be captured; nothing of it was done, and the stream is as it
                was before.
        """
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(runtime.cudaStreamBeginCapture(self._stream, mode))
        try:
            call()
        except BaseException:
            self._abandon_capture()
            raise
        captured = _checked(runtime.cudaStreamEndCapture(self._stream))
        try:
            return Graph(captured, self._stream)
        finally:
            runtime.cudaGraphDestroy(captured)

    def _abandon_capture(self) -> None:
        """Return the stream to normal work."""
        error, captured = runtime.cudaStreamEndCapture(self._stream)
        if not int(error):
            runtime.cudaGraphDestroy(captured)
        runtime.cudaGetLastError()  # a failed capture leaves its error for the next to find

    def _copy(self, target: int, source: int, num_bytes: int, kind: object) -> None:
        _checked(runtime.cudaMemcpyAsync(target, source, num_bytes, kind, self._stream))


def _check_index(index: int) -> None:
    """Refuse a GPU that is not there.

    Raises:
        MissingPartError: naming what the driver says.
    """
    error, count = runtime.cudaGetDeviceCount()
    if int(error) or not count:
        driver = int(runtime.cudaDriverGetVersion()[1] or 0)
        needed = int(runtime.cudaRuntimeGetVersion()[1] or 0)
        says = f"CUDA says {_text(error)}" if int(error) else "CUDA counts 0 devices"
        found = f"whose driver is for CUDA {_version(driver)}" if driver else "which has no driver"
        raise MissingPartError(
            f"found no GPU to use on this machine, {found} ({says}); expected an NVIDIA GPU and a "
            f"driver for CUDA {_version(needed)}: install or update it until `nvidia-smi` lists "
            "the GPU, give a container access to it, or use the backend 'ort'"
        )
    if not 0 <= index < count:
        raise MissingPartError(
            f"found no GPU {index}; expected 0 to {count - 1}: choose one that `nvidia-smi` lists"
        )


def _at_end(owner: object, free: Callable[..., object], *args: object) -> None:
    """Free what an object owns when it goes; at the program's end, the driver does."""
    weakref.finalize(owner, free, *args).atexit = False


def _version(number: int) -> str:
    """Return CUDA's version number, 13050, as it is written, 13.5."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _text(error: _Handle) -> str:
    """Return an error's name and meaning."""
    words = runtime.cudaGetErrorString(error)[1]
    meaning = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
    return f"{getattr(error, 'name', error)}: {meaning}"


def _checked(result: tuple[_Handle, ...]) -> _Handle:
    """Return what a call returned behind its error.

    Raises:
        DeviceError: the error is one; the text says what can be done.
    """
    error = result[0]
    if int(error):
        runtime.cudaGetLastError()  # else the next call that asks would be told of this one
        remedy = "start the process again; what is on the device is lost"
        if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
            remedy = "free memory on the device, or use a bundle with fewer --max-frames"
        raise DeviceError(f"found {_text(error)}; expected no error of the device: {remedy}")
    return result[1] if len(result) > 1 else None
