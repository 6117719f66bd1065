"""The viewer's process: ViewProcess starts it from the robot's, and main is what runs in it."""

import os
import signal
import socket
import subprocess
import sys
import time
from typing import Protocol

import msgspec

from memorywam_robot.viewer.view_channel import MAX_MESSAGE_BYTES
from memorywam_robot.viewer.view_events import Event, Setup
from memorywam_runtime import errors
from memorywam_runtime.errors import DeviceError, MemorywamError

__all__ = ["ViewProcess", "main"]

_NICENESS = 10
_POLL_S = 0.01


class Sink(Protocol):
    """What shows events, in the viewer's process."""

    @property
    def address(self) -> str:
        """Where it can be looked at."""
        ...

    def show(self, event: Event) -> None:
        """Show one."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the viewer says once, before the first event."""

    address: str = ""
    error: str = ""
    text: str = ""


class ViewProcess:
    """A running viewer, in a session of its own so that a terminal's Ctrl-C misses it.

    It ends when the other end of its socket is closed, so also when the robot's process is killed.
    """

    def __init__(self, setup: Setup, *, ready_s: float) -> None:
        """Start it and wait for its answer.

        Raises:
            MemorywamError: what it could not do, as it says itself.
            DeviceError: it ended without a word, or is not ready in time.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "memorywam_robot.viewer.view_process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
        self.socket = ours
        try:
            ours.settimeout(ready_s)
            self.address = self._answered(setup, ready_s)
        except BaseException:
            ours.close()
            self.end(0.0)
            raise

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def end(self, within_s: float) -> bool:
        """Wait for its end once the socket is closed, or force it; return whether it was well."""
        try:
            return self._process.wait(within_s) == 0
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False

    def _answered(self, setup: Setup, ready_s: float) -> str:
        """Tell what to show; return its address, or raise what it says if that is an error."""
        try:
            self.socket.send(msgspec.msgpack.encode(setup))
            message = self.socket.recv(MAX_MESSAGE_BYTES)
        except (TimeoutError, OSError):
            message = b""
        if not message:
            raise DeviceError(
                f"the viewer did not start within {ready_s:g} s; run without --view, or see its "
                "error output"
            )
        answer = msgspec.msgpack.decode(message, type=_Answer)
        if answer.error:
            kind = getattr(errors, answer.error, DeviceError)
            is_ours = isinstance(kind, type) and issubclass(kind, MemorywamError)
            raise (kind if is_ours else DeviceError)(answer.text)
        return answer.address


def main(argv: list[str]) -> int:
    """Show all events of a socket until it is closed.

    Args:
        argv: The number of the socket's descriptor.

    Returns:
        0 if everything was shown.
    """
    # Whoever stops the robot means the robot; the viewer shows it to the end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    with socket.socket(fileno=int(argv[0])) as events:
        setup = msgspec.msgpack.decode(events.recv(MAX_MESSAGE_BYTES), type=Setup)
        try:
            sink = _sink_from_setup(setup)
        except MemorywamError as error:
            answer = _Answer(error=type(error).__name__, text=str(error))
            events.send(msgspec.msgpack.encode(answer))
            return 1
        try:
            events.send(msgspec.msgpack.encode(_Answer(address=sink.address)))
            decoder = msgspec.msgpack.Decoder(Event)
            # Asked for now and then, so that nothing the robot's process sends has to wake it.
            events.settimeout(0.0)
            while (message := _received(events)) != b"":
                if message is None:
                    time.sleep(_POLL_S)
                else:
                    sink.show(decoder.decode(message))
        finally:
            sink.close()
    return 0


def _received(events: socket.socket) -> bytes | None:
    """Return the next message; None if none is there yet, nothing if none will ever be."""
    try:
        return events.recv(MAX_MESSAGE_BYTES)
    except BlockingIOError:
        return None


def _sink_from_setup(setup: Setup) -> Sink:
    """Open what shows events; its package is loaded here and nowhere else."""
    from memorywam_robot.viewer.view_foxglove import FoxgloveSink

    return FoxgloveSink(setup)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
