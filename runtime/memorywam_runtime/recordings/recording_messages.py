"""The messages of a recording's MCAP file: their fields, topics and JSON Schemas."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.recording import Ending, Header, Provenance

__all__ = [
    "CAMERA_TOPIC",
    "KINDS",
    "SCHEMA_VERSION",
    "ActionMessage",
    "ChunkMessage",
    "EndMessage",
    "ImageMessage",
    "InstructionMessage",
    "MemoryMessage",
    "MessageKind",
    "StartMessage",
    "StateMessage",
    "Time",
    "Vector",
    "array_from_vector",
    "recording_schema",
    "time_from_ns",
    "vector_from_array",
]

SCHEMA_VERSION = 1
CAMERA_TOPIC = "/camera/"
"""What the topic of a camera's images begins with; its name follows."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all messages: immutable, keyword-only, and strict about unknown fields.

    Viewers know no references, no alternatives and no lists of lists; there are none in here.
    """


class Time(_Message, frozen=True, kw_only=True):
    """A point in time in the form that viewers know."""

    sec: int
    nsec: int

    @property
    def ns(self) -> int:
        """The same in nanoseconds."""
        return self.sec * 1_000_000_000 + self.nsec


class Vector(_Message, frozen=True, kw_only=True):
    """Numbers, one a joint."""

    values: tuple[float, ...]
    """0 where a number was not finite: JSON has no other."""
    not_finite: tuple[int, ...]
    """Indices of the values that were not finite."""


class ImageMessage(_Message, frozen=True, kw_only=True):
    """One camera image; the fields are those of `foxglove.CompressedImage`."""

    timestamp: Time
    """When it was captured."""
    frame_id: str
    """The camera's name."""
    data: bytes
    format: str
    """png"""


class StateMessage(_Message, frozen=True, kw_only=True):
    """The joints of an observation; its images stand before it, with the same sequence number."""

    step: int
    """Environment steps since reset."""
    cameras: tuple[str, ...]
    """Whose images belong to the observation."""
    positions: Vector


class ActionMessage(_Message, frozen=True, kw_only=True):
    """An action that the arms executed."""

    step: int
    """From 1: the step that it made."""
    targets: Vector
    state: Vector = Vector(values=(), not_finite=())
    """Joint positions as the step began; empty where nobody measured them then."""


class ChunkMessage(_Message, frozen=True, kw_only=True):
    """What the policy gave."""

    frame: int
    """The newest frame in memory."""
    state: Vector
    """Joint positions that it was given."""
    actions: tuple[Vector, ...]
    """In the order of their steps."""
    prefix: tuple[Vector, ...] = ()
    """The actions that it was made to begin with."""
    attempt: int = 0
    """1 where the frame's first chunk was not to be used."""
    is_given_up: bool = False
    """It was begun and never ready: it has no actions, and its state is in force all the same."""


class InstructionMessage(_Message, frozen=True, kw_only=True):
    """Another instruction than the one before."""

    step: int
    """Environment steps of the episode, all told, that were over."""
    instruction: str
    keep_memory: bool
    """If not, memory was emptied and observations count from step 0 again."""


class MemoryMessage(_Message, frozen=True, kw_only=True):
    """What happened to memory."""

    what: Literal["reset", "instruction", "evicted", "remembered"]
    instruction: str = ""
    """Of an instruction."""
    frame: int = -1
    """That was remembered or evicted."""
    slot: int = -1
    """That it took or left."""
    evicted: int = -1
    """Frame that had the slot before; its gist stays."""
    steps: tuple[int, ...] = ()
    """Of the observations that became the frame."""
    num_frames: int = 0
    """Remembered since reset."""
    num_gists: int = 0
    """Places of the gist table in use."""
    memory_digest: str = ""
    """Of all memory, where it was asked for."""


class StartMessage(_Message, frozen=True, kw_only=True):
    """All that is known before the first step; always the first message."""

    schema_version: int
    header: Header
    provenance: Provenance
    monotonic: Time
    """The recording computer's monotonic clock when its wall clock showed `wall`."""
    wall: Time
    """Every time in the file is monotonic, plus the difference of these two."""


class EndMessage(_Message, frozen=True, kw_only=True):
    """How it went; always the last message of a whole recording."""

    ending: Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageKind:
    """What one topic carries."""

    topic: str
    schema: str
    """Name of its JSON Schema."""
    message: type[msgspec.Struct]


KINDS = (
    MessageKind(topic="/episode/start", schema="memorywam.EpisodeStart", message=StartMessage),
    MessageKind(topic=CAMERA_TOPIC, schema="foxglove.CompressedImage", message=ImageMessage),
    MessageKind(topic="/state", schema="memorywam.State", message=StateMessage),
    MessageKind(topic="/memory", schema="memorywam.Memory", message=MemoryMessage),
    MessageKind(topic="/instruction", schema="memorywam.Instruction", message=InstructionMessage),
    MessageKind(topic="/chunk", schema="memorywam.Chunk", message=ChunkMessage),
    MessageKind(topic="/action", schema="memorywam.Action", message=ActionMessage),
    MessageKind(topic="/episode/end", schema="memorywam.EpisodeEnd", message=EndMessage),
)
"""Everything that a recording's file holds."""


def recording_schema() -> dict[str, Any]:
    """Return the published JSON Schemas of a recording's messages, by schema name."""
    return {kind.schema: _schema(kind) for kind in KINDS}


def time_from_ns(ns: int) -> Time:
    """Return a point in time given in nanoseconds."""
    sec, nsec = divmod(ns, 1_000_000_000)
    return Time(sec=sec, nsec=nsec)


def vector_from_array(array: NDArray[np.floating]) -> Vector:
    """Return numbers [n] in a form that JSON can carry, each bit of a float64 kept."""
    values = np.asarray(array, np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        values = values.copy()
        values[wrong] = 0.0
    return Vector(values=tuple(values.tolist()), not_finite=tuple(wrong.tolist()))


def array_from_vector(vector: Vector) -> NDArray[np.float64]:
    """Return the numbers [n]; NaN where they were not finite.

    Raises:
        ValueError: an index beyond the numbers.
    """
    values = np.array(vector.values, np.float64)
    try:
        wrong = np.array(vector.not_finite, np.int64)
    except OverflowError as error:  # JSON has numbers of any length
        raise ValueError(f"not_finite names none of {values.size} numbers ({error})") from error
    if wrong.size and not ((wrong >= 0) & (wrong < values.size)).all():
        raise ValueError(f"not_finite names {wrong.tolist()} of {values.size} numbers")
    values[wrong] = np.nan
    return values


def _schema(kind: MessageKind) -> dict[str, Any]:
    """Return a message's JSON Schema with every reference resolved: viewers follow none."""
    schema = msgspec.json.schema(kind.message)
    plain = _resolved(schema, schema.get("$defs", {}))
    assert isinstance(plain, dict)
    return plain | {"title": kind.schema}


def _resolved(part: object, defs: Mapping[str, Any]) -> object:
    """Return a part of a JSON Schema without references and without alternatives of types."""
    if isinstance(part, list):
        return [_resolved(one, defs) for one in part]
    if not isinstance(part, Mapping):
        return part
    if "$ref" in part:
        return _resolved(defs[part["$ref"].rpartition("/")[2]], defs)
    plain = {key: _resolved(one, defs) for key, one in part.items() if key not in _LEFT_OUT}
    if plain.get("title") == Time.__name__:
        plain["title"] = "time"  # what viewers know it by
    return plain | {"type": "string"} if "enum" in plain and "type" not in plain else plain


_LEFT_OUT = ("$defs", "default", "additionalProperties")
"""Of no use to a reader of messages that are there; some viewers stumble over them."""
