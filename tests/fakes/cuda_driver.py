"""A CUDA runtime without a GPU: work waits in the stream until somebody waits for it.

Device addresses are made up, so that host code that follows one crashes; what is behind them is
host memory, filled with garbage until it is written. Nothing runs before the host waits, which is
the latest that a GPU may do it: a host that changes what a pending copy reads is found out. Errors
and types of handles are those of the real package.
"""

import ctypes
import functools
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda.bindings import runtime as real  # pyright: ignore[reportAttributeAccessIssue]
from numpy.typing import NDArray

from memorywam_runtime.backends import cuda

__all__ = ["FakeCuda", "installed"]

_FIRST_ADDRESS = 0x7F00_0000_0000
_ALIGNMENT_BYTES = 256
_DEVICE_GARBAGE = 0xCD
_HOST_GARBAGE = 0xDC

Work = Callable[[], None]


def installed(monkeypatch: pytest.MonkeyPatch, **options: Any) -> "FakeCuda":
    """Put a fake in the place of cuda-python."""
    fake = FakeCuda(**options)
    monkeypatch.setattr(cuda, "runtime", fake)
    return fake


def _recorded(function: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Keep the call's arguments; give the error that a test asked for instead of working."""
    name = function.__name__

    @functools.wraps(function)
    def call(self: "FakeCuda", *args: Any) -> tuple[Any, ...]:
        self.calls.append((name, args))
        if name in self.errors:
            return self.errors.pop(name), *self.no_result.get(name, ())
        return function(self, *args)

    return call


class FakeCuda:
    """The functions of `cuda.bindings.runtime` that we call; all else is the real module's."""

    def __init__(self, num_devices: int = 1, capability: tuple[int, int] = (8, 9)) -> None:
        self.num_devices = num_devices
        self.capability = capability
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.errors: dict[str, Any] = {}
        """What the next call of a function gives."""
        with_results = ("cudaMalloc", "cudaHostAlloc", "cudaGraphInstantiate", "cudaGetDeviceCount")
        self.no_result: dict[str, tuple[None]] = dict.fromkeys(with_results, (None,))
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.pinned: dict[int, NDArray[np.uint8]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.num_launches = 0
        self._next_address = _FIRST_ADDRESS
        self._next_handle = 1
        self._pending: deque[tuple[int, Work]] = deque()
        self._events: dict[int, int] = {}
        self._count = 0
        self._captured: list[Work] | None = None
        self._is_invalid = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(real, name)
        is_function = callable(found) and not isinstance(found, type)
        if is_function:
            raise AttributeError(f"the fake CUDA runtime has no {name}")
        return found

    # What tests and other fakes use.

    def names(self) -> list[str]:
        """Return the names of the calls so far, in order."""
        return [name for name, _ in self.calls]

    def at(self, address: int, num_bytes: int) -> NDArray[np.uint8]:
        """Return what is behind a device address, shared."""
        for start, block in self.memory.items():
            if start <= address and address + num_bytes <= start + block.size:
                return block[address - start : address - start + num_bytes]
        raise AssertionError(f"illegal device address {address:#x}, {num_bytes} bytes")

    def enqueue(self, work: Work) -> None:
        """Put work into the stream, or into the graph that is being captured."""
        if self._captured is not None:
            self._captured.append(work)
            return
        self._count += 1
        self._pending.append((self._count, work))

    @property
    def is_capturing(self) -> bool:
        """Is the stream being captured?"""
        return self._captured is not None

    @property
    def num_pending(self) -> int:
        """Pieces of work that have not been done."""
        return len(self._pending)

    def run_until(self, count: int) -> None:
        """Do the work up to one piece."""
        while self._pending and self._pending[0][0] <= count:
            self._pending.popleft()[1]()

    # The device.

    @_recorded
    def cudaGetDeviceCount(self) -> tuple[Any, ...]:  # noqa: N802
        return self._ok(self.num_devices)

    @_recorded
    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        assert 0 <= device < self.num_devices
        return self._ok()

    @_recorded
    def cudaDeviceGetAttribute(self, attr: Any, device: int) -> tuple[Any, ...]:  # noqa: N802
        major = attr == real.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor
        return self._ok(self.capability[0 if major else 1])

    @_recorded
    def cudaDriverGetVersion(self) -> tuple[Any, ...]:  # noqa: N802
        return self._ok(13000)

    @_recorded
    def cudaRuntimeGetVersion(self) -> tuple[Any, ...]:  # noqa: N802
        return self._ok(13050)

    @_recorded
    def cudaGetErrorString(self, error: Any) -> tuple[Any, ...]:  # noqa: N802
        return self._ok(*real.cudaGetErrorString(error)[1:])

    @_recorded
    def cudaGetLastError(self) -> tuple[Any, ...]:  # noqa: N802
        return self._ok()

    # Memory.

    @_recorded
    def cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        if self._breaks_capture():
            return real.cudaError_t.cudaErrorStreamCaptureUnsupported, None
        address = self._next_address
        # A gap behind each: what runs over the end is found out.
        self._next_address += (size // _ALIGNMENT_BYTES + 2) * _ALIGNMENT_BYTES
        self.memory[address] = np.full(size, _DEVICE_GARBAGE, np.uint8)
        return self._ok(address)

    @_recorded
    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:  # noqa: N802, N803
        if self._breaks_capture():
            return (real.cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self.run_until(self._count)
        del self.memory[devPtr]
        return self._ok()

    @_recorded
    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:  # noqa: N802
        block = np.full(size, _HOST_GARBAGE, np.uint8)
        self.pinned[block.ctypes.data] = block
        return self._ok(block.ctypes.data)

    @_recorded
    def cudaFreeHost(self, ptr: int) -> tuple[Any, ...]:  # noqa: N802
        self.run_until(self._count)
        del self.pinned[ptr]
        return self._ok()

    @_recorded
    def cudaMemcpyAsync(  # noqa: N802
        self, dst: int, src: int, count: int, kind: Any, stream: Any
    ) -> tuple[Any, ...]:
        kinds = real.cudaMemcpyKind
        into = self._host(dst, count) if kind == kinds.cudaMemcpyDeviceToHost else None
        out_of = self._host(src, count) if kind == kinds.cudaMemcpyHostToDevice else None
        if kind == kinds.cudaMemcpyDeviceToDevice:
            assert abs(dst - src) >= count, "a copy between places that overlap"

        def work() -> None:
            target = self.at(dst, count) if into is None else into
            target[:] = self.at(src, count) if out_of is None else out_of

        return self._enqueued(work, stream)

    @_recorded
    def cudaMemcpy2DAsync(  # noqa: N802
        self,
        dst: int,
        dpitch: int,
        src: int,
        spitch: int,
        width: int,
        height: int,
        kind: Any,
        stream: Any,
    ) -> tuple[Any, ...]:
        assert kind == real.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        assert width <= dpitch
        assert width <= spitch

        def work() -> None:
            rows = [self.at(src + row * spitch, width).copy() for row in range(height)]
            before = [row.tobytes() for row in rows]
            for row in range(height):
                self.at(dst + row * dpitch, width)[:] = rows[row]
            after = [self.at(src + row * spitch, width).tobytes() for row in range(height)]
            assert before == after, "a strided copy between places that overlap"

        return self._enqueued(work, stream)

    @_recorded
    def cudaMemsetAsync(self, devPtr: int, value: int, count: int, stream: Any) -> tuple[Any, ...]:  # noqa: N802, N803
        return self._enqueued(lambda: self.at(devPtr, count).fill(value), stream)

    @_recorded
    def cudaMemset2DAsync(  # noqa: N802
        self,
        devPtr: int,  # noqa: N803
        pitch: int,
        value: int,
        width: int,
        height: int,
        stream: Any,
    ) -> tuple[Any, ...]:
        def work() -> None:
            for row in range(height):
                self.at(devPtr + row * pitch, width).fill(value)

        return self._enqueued(work, stream)

    # The stream, its events and its graphs.

    @_recorded
    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return self._ok(real.cudaStream_t(self._handle()))

    @_recorded
    def cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:  # noqa: N802
        self.run_until(self._count)
        return self._ok()

    @_recorded
    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:  # noqa: N802
        if self._breaks_capture():
            return (real.cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self.run_until(self._count)
        return self._ok()

    @_recorded
    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return self._ok(real.cudaEvent_t(self._handle()))

    @_recorded
    def cudaEventRecord(self, event: Any, stream: Any) -> tuple[Any, ...]:  # noqa: N802
        assert self._captured is None, "an event of the host inside a capture"
        self._events[int(event)] = self._count
        return self._ok()

    @_recorded
    def cudaEventSynchronize(self, event: Any) -> tuple[Any, ...]:  # noqa: N802
        self.run_until(self._events[int(event)])
        return self._ok()

    @_recorded
    def cudaEventDestroy(self, event: Any) -> tuple[Any, ...]:  # noqa: N802
        self._events.pop(int(event), None)
        return self._ok()

    @_recorded
    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any, ...]:  # noqa: N802
        assert self._captured is None
        self._captured, self._is_invalid = [], False
        return self._ok()

    @_recorded
    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:  # noqa: N802
        captured, self._captured = self._captured, None
        assert captured is not None
        if self._is_invalid:
            return real.cudaError_t.cudaErrorStreamCaptureInvalidated, None
        handle = self._handle()
        self.graphs[handle] = captured
        return self._ok(real.cudaGraph_t(handle))

    @_recorded
    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:  # noqa: N802
        handle = self._handle()
        self.graphs[handle] = self.graphs[int(graph)]
        return self._ok(real.cudaGraphExec_t(handle))

    @_recorded
    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> tuple[Any, ...]:  # noqa: N802, N803
        self.num_launches += 1
        for work in self.graphs[int(graphExec)]:
            self.enqueue(work)
        return self._ok()

    @_recorded
    def cudaGraphExecDestroy(self, graphExec: Any) -> tuple[Any, ...]:  # noqa: N802, N803
        del self.graphs[int(graphExec)]
        return self._ok()

    @_recorded
    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:  # noqa: N802
        del self.graphs[int(graph)]
        return self._ok()

    def _ok(self, *values: Any) -> tuple[Any, ...]:
        return (real.cudaError_t.cudaSuccess, *values)

    def _handle(self) -> int:
        self._next_handle += 1
        return self._next_handle

    def _enqueued(self, work: Work, stream: Any) -> tuple[Any, ...]:
        assert int(stream) > 0, "not on our stream"
        self.enqueue(work)
        return self._ok()

    def _breaks_capture(self) -> bool:
        if self._captured is None:
            return False
        self._is_invalid = True
        return True

    def _host(self, address: int, num_bytes: int) -> NDArray[np.uint8]:
        """Return pinned host memory; any other would make the copy wait."""
        for start, block in self.pinned.items():
            if start <= address and address + num_bytes <= start + block.size:
                held = (ctypes.c_uint8 * num_bytes).from_address(address)
                return np.ctypeslib.as_array(held)
        raise AssertionError(f"host address {address:#x} is not pinned")
