"""Writes from the host to the device that neither wait nor allocate."""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.backends.cuda import Device, Event, Pinned

__all__ = ["Staging"]

_NUM_EVENTS = 256
_ALIGNMENT_BYTES = 256


class Staging:
    """A ring of pinned memory through which writes go, so that the host need not wait for them.

    A copy reads its piece of the ring when the device gets there, maybe after several more writes
    to the same tensor. A piece is therefore used again only when the event behind its copy has
    passed: the host waits for the oldest copy when the ring is full, and never otherwise.
    """

    def __init__(self, device: Device, num_bytes: int, num_events: int = _NUM_EVENTS) -> None:
        self._device = device
        self._ring = Pinned(num_bytes)
        self._events = [Event() for _ in range(num_events)]
        self._pending: deque[tuple[int, int, Event]] = deque()
        self._next_byte = 0
        self._next_event = 0
        self.piece_bytes = num_bytes // 4 // _ALIGNMENT_BYTES * _ALIGNMENT_BYTES
        """The most that one `send` takes, bytes."""

    def send(self, address: int, values: NDArray[Any], dtype: np.dtype[Any]) -> None:
        """Copy host values to a device address in another type of the same kind."""
        num_bytes = values.size * dtype.itemsize
        first = self._take(num_bytes)
        piece = self._ring.array[first : first + num_bytes].view(dtype).reshape(values.shape)
        np.copyto(piece, values, casting="same_kind")
        self._device.upload(address, self._ring.address + first, num_bytes)
        event = self._events[self._next_event]
        self._next_event = (self._next_event + 1) % len(self._events)
        self._device.record(event)
        self._pending.append((first, first + num_bytes, event))

    def clear(self) -> None:
        """Note that the device has done all that was asked."""
        self._pending.clear()

    def _take(self, num_bytes: int) -> int:
        """Return the first byte of a piece that nothing reads any more."""
        first = self._next_byte
        if first + num_bytes > self._ring.num_bytes:
            first = 0
        last = first + num_bytes
        while self._pending and (
            len(self._pending) == len(self._events)
            or any(start < last and first < end for start, end, _ in self._pending)
        ):
            self._pending.popleft()[2].wait()
        self._next_byte = -(-last // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        return first
