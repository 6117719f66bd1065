"""One way through a recording's messages: to events, until the first that cannot be trusted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import InputError
from memorywam_runtime.images import image_from_bytes
from memorywam_runtime.observation import Observation
from memorywam_runtime.recording import (
    Acted,
    Ending,
    Event,
    Instructed,
    Observed,
    Remembered,
    Sent,
)
from memorywam_runtime.recordings.recording_header import check_start
from memorywam_runtime.recordings.recording_messages import (
    CAMERA_TOPIC,
    SCHEMA_VERSION,
    ActionMessage,
    ChunkMessage,
    EndMessage,
    ImageMessage,
    InstructionMessage,
    MemoryMessage,
    StartMessage,
    StateMessage,
    Vector,
    array_from_vector,
)

__all__ = ["DamageError", "RawMessage", "Scan"]

_M = TypeVar("_M", bound=msgspec.Struct)


class DamageError(Exception):
    """Nothing from here on can be trusted; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawMessage:
    """One message as the file holds it."""

    topic: str
    sequence: int
    log_ns: int
    publish_ns: int
    data: bytes


class Scan:
    """One way through a recording, from its first message to its last or to the damage."""

    def __init__(self, name: str, *, is_decoding: bool) -> None:
        """Begin.

        Args:
            name: Of the file, for errors.
            is_decoding: Decode images; without it observations have none.
        """
        self._name = name
        self._is_decoding = is_decoding
        self.start: StartMessage | None = None
        """The header, once it was met."""
        self.ending: Ending | None = None
        """How it went, once that was met."""
        self._last_step = -1
        self._sequence = 0
        self._images: dict[str, ImageMessage] = {}
        self._offset_ns = 0

    @property
    def reach(self) -> str:
        """How far the events went, in words."""
        if self._last_step < 0:
            return "none of them a step"
        return f"the last of them of step {self._last_step}"

    def events(self, messages: Iterable[RawMessage]) -> Iterator[Event]:
        """Yield events.

        Raises:
            DamageError: here the damage begins.
            InputError: a recording of another release, or an image that cannot be decoded.
        """
        for message in messages:
            if self.start is None:
                self._begin(message)
                continue
            self._check_order(message)
            event = self._event(message)
            if event is not None:
                self._sequence = message.sequence
                yield event

    def _begin(self, message: RawMessage) -> None:
        """Take over the header."""
        if message.topic != "/episode/start":
            raise DamageError(
                f"found a message on '{message.topic}'; expected the episode's start first"
            )
        version = _decoded(message, _Version).schema_version
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{self._name}: found schema version {version}; this release reads "
                f"{SCHEMA_VERSION}: use the release that recorded it"
            )
        start = _decoded(message, StartMessage)
        check_start(self._name, start)
        self.start = start
        self._offset_ns = self.start.wall.ns - self.start.monotonic.ns

    def _check_order(self, message: RawMessage) -> None:
        """Refuse a message that is not of the next event."""
        expected = self._sequence + 1
        if self.ending is not None:
            raise DamageError("messages follow the end of the episode")
        if message.sequence > expected:
            raise DamageError(
                f"event {expected} is missing: it was lost, or the disk did not keep up"
            )
        if message.sequence < expected and (message.topic != "/memory" or self._sequence):
            raise DamageError(f"event {message.sequence} is there twice")

    def _event(self, message: RawMessage) -> Event | None:
        """Return the event that a message completes, or None."""
        topic, received_ns = message.topic, message.log_ns - self._offset_ns
        if topic.startswith(CAMERA_TOPIC):
            self._images[topic.removeprefix(CAMERA_TOPIC)] = _decoded(message, ImageMessage)
            return None
        if topic == "/state":
            return self._observed(_decoded(message, StateMessage), message, received_ns)
        if self._images:
            raise DamageError(f"the images of {sorted(self._images)} have no joint state")
        if topic == "/memory":
            return _remembered(_decoded(message, MemoryMessage), received_ns)
        if topic == "/chunk":
            return self._acted(_decoded(message, ChunkMessage), received_ns)
        if topic == "/action":
            return self._sent(_decoded(message, ActionMessage), received_ns)
        if topic == "/instruction":
            told = _decoded(message, InstructionMessage)
            return Instructed(
                step=told.step,
                instruction=told.instruction,
                keep_memory=told.keep_memory,
                received_ns=received_ns,
            )
        if topic == "/episode/end":
            self.ending = _decoded(message, EndMessage).ending
        return None

    def _sent(self, action: ActionMessage, received_ns: int) -> Sent:
        """Return the action that a message holds."""
        self._last_step = max(self._last_step, action.step)
        state, what = action.state, f"step {action.step}"
        is_measured = bool(state.values or state.not_finite)
        return Sent(
            step=action.step,
            action=self._joints(action.targets, self._dims[1], what),
            received_ns=received_ns,
            state=self._joints(state, self._dims[0], what) if is_measured else None,
        )

    def _observed(self, state: StateMessage, message: RawMessage, received_ns: int) -> Observed:
        """Return the observation that a joint state closes."""
        images, self._images = self._images, {}
        if set(images) != set(state.cameras):
            raise DamageError(
                f"step {state.step} has images of {sorted(images)}; expected {list(state.cameras)}"
            )
        pictures = {}
        if self._is_decoding:
            for name in state.cameras:
                what = f"{self._name}: camera '{name}' at step {state.step}"
                pictures[name] = image_from_bytes(images[name].data, what)
        positions = self._joints(state.positions, self._dims[0], f"step {state.step}")
        self._last_step = max(self._last_step, state.step)
        return Observed(
            observation=Observation(images=pictures, state=positions, step=state.step),
            captured_ns=message.publish_ns - self._offset_ns,
            received_ns=received_ns,
        )

    def _acted(self, message: ChunkMessage, received_ns: int) -> Acted:
        """Return the chunk that a message tells of."""
        where = f"the chunk after frame {message.frame}"
        state_dim, action_dim = self._dims
        actions = [self._joints(action, action_dim, where) for action in message.actions]
        if bool(actions) == message.is_given_up:
            raise DamageError(f"{where} has {len(actions)} actions")
        prefix = [self._joints(action, action_dim, where) for action in message.prefix]
        return Acted(
            frame=message.frame,
            state=self._joints(message.state, state_dim, where),
            chunk=np.stack(actions) if actions else np.zeros((0, action_dim)),
            received_ns=received_ns,
            prefix=np.stack(prefix) if prefix else None,
            attempt=message.attempt,
        )

    @property
    def _dims(self) -> tuple[int, int]:
        """How many numbers states and actions have, by the header."""
        assert self.start is not None
        return self.start.header.state_dim, self.start.header.action_dim

    def _joints(self, vector: Vector, count: int, where: str) -> NDArray[np.float64]:
        """Return a message's numbers [count]."""
        values = _vector(vector)
        if len(values) != count:
            raise DamageError(f"{where} is of {len(values)} joints; the header has {count}")
        return values


def _remembered(message: MemoryMessage, received_ns: int) -> Remembered | None:
    """Return the frame that memory took; what left for it is told with it."""
    if message.what != "remembered":
        return None
    return Remembered(
        frame=message.frame,
        steps=message.steps,
        slot=message.slot,
        evicted=message.evicted,
        num_gists=message.num_gists,
        memory_digest=message.memory_digest,
        received_ns=received_ns,
    )


class _Version(msgspec.Struct):
    """The one field that is read before anything else is trusted."""

    schema_version: Any


def _vector(vector: Vector) -> NDArray[np.float64]:
    """Return a message's numbers [n]."""
    try:
        return array_from_vector(vector)
    except ValueError as error:
        raise DamageError(str(error)) from error


def _decoded(message: RawMessage, kind: type[_M]) -> _M:
    """Return a message's fields."""
    try:
        return msgspec.json.decode(message.data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"a message of another kind: {error}") from error
