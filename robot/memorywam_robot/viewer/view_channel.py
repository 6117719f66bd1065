"""EventChannel: messages to another process that nobody ever waits for."""

import collections
import contextlib
import socket
import threading

__all__ = ["MAX_MESSAGE_BYTES", "EventChannel"]

MAX_MESSAGE_BYTES = 160_000
"""A socket takes no message longer than its buffer, of which Linux grants 208 KiB to everybody."""
_SEND_BUFFER_BYTES = 1 << 20
_MOST_A_CALL = 4
"""Messages sent in one call: what waits goes out over several."""


class EventChannel:
    """The sending end of a socket that keeps messages whole.

    What the kernel does not take waits in a bounded queue, of which the oldest is dropped. So a
    reader that stands still costs one refused system call an event; one that is gone costs nothing.
    Any thread may put: who finds another one sending leaves the message to it.
    """

    def __init__(self, sender: socket.socket, num_waiting: int) -> None:
        """Send through a socket of type SOCK_SEQPACKET, which it owns from now on."""
        sender.settimeout(0.0)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._socket = sender
        self._waiting: collections.deque[bytes] = collections.deque()
        self._num_waiting = num_waiting
        self._sending = threading.Lock()
        self.is_lost = False
        """The reader is gone."""
        self.num_dropped = 0

    def put(self, message: bytes) -> None:
        """Send a message, or leave it to a later call, or drop the oldest; never waits."""
        if self.is_lost or len(message) > MAX_MESSAGE_BYTES:
            self.num_dropped += 1
            return
        if len(self._waiting) >= self._num_waiting:
            with contextlib.suppress(IndexError):  # another thread sent the last
                self._waiting.popleft()
                self.num_dropped += 1
        self._waiting.append(message)
        if not self._sending.acquire(blocking=False):
            return
        try:
            for _ in range(_MOST_A_CALL):
                if not self._send():
                    return
        finally:
            self._sending.release()

    def finish(self, within_s: float) -> None:
        """Send what waits if the reader takes it in time, and close; the only call that waits."""
        if not self.is_lost:
            self._socket.settimeout(within_s)
            while self._send():
                pass
        self._forget()
        self._socket.close()

    def _send(self) -> bool:
        """Send the oldest; return whether there was one, and it was taken."""
        try:
            message = self._waiting.popleft()
        except IndexError:
            return False
        try:
            self._socket.send(message)
        except (BlockingIOError, TimeoutError):
            self._waiting.appendleft(message)
            return False
        except OSError:
            self.is_lost = True
            self.num_dropped += 1
            self._forget()
            return False
        return True

    def _forget(self) -> None:
        """Drop all that waits."""
        self.num_dropped += len(self._waiting)
        self._waiting.clear()
