"""Recordings as MCAP files: written event by event, read up to the damage."""

from collections.abc import Iterator
from io import BufferedReader, FileIO
from pathlib import Path
from typing import IO, Final

import msgspec
import numpy as np

from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.images import png_from_image
from memorywam_runtime.recording import (
    Acted,
    Ending,
    Event,
    Instructed,
    Observed,
    Recording,
    Remembered,
)
from memorywam_runtime.recordings.recording_messages import (
    CAMERA_TOPIC,
    KINDS,
    ActionMessage,
    ChunkMessage,
    EndMessage,
    ImageMessage,
    InstructionMessage,
    MemoryMessage,
    StartMessage,
    StateMessage,
    recording_schema,
    time_from_ns,
    vector_from_array,
)
from memorywam_runtime.recordings.recording_scan import DamageError, RawMessage, Scan

try:
    import zstandard
    from mcap import records
    from mcap.stream_reader import StreamReader, breakup_chunk
    from mcap.writer import Writer
except ImportError as error:
    raise MissingPartError(
        f"MCAP recordings cannot be written or read: {error}; pip install 'memorywam[record]'"
    ) from error

__all__ = ["MAX_CHUNK_BYTES", "PROFILE", "McapRecorder", "read_mcap"]

PROFILE: Final = "memorywam"
"""What the file's header says it holds."""
MAX_CHUNK_BYTES = 1 << 28
"""Of one compressed block, before and after; more is refused before it is unpacked."""


class McapRecorder:
    """Writes one recording to a stream; for one thread."""

    def __init__(self, stream: IO[bytes], start: StartMessage) -> None:
        """Write the header, so that a file cut off later is still known for what it is.

        Args:
            stream: To write to, from where it stands; it is left open.
            start: What is known before the first step.
        """
        self._offset_ns = start.wall.ns - start.monotonic.ns
        self._writer = Writer(stream, enable_data_crcs=True)
        self._writer.start(profile=PROFILE)
        self._schemas = {
            name: self._writer.register_schema(name, "jsonschema", msgspec.json.encode(schema))
            for name, schema in recording_schema().items()
        }
        self._channels: dict[str, int] = {}
        topics = [kind.topic for kind in KINDS if kind.topic != CAMERA_TOPIC]
        for topic in (*topics, *(CAMERA_TOPIC + name for name in start.header.cameras)):
            self._channel(topic)
        now_ns = start.monotonic.ns
        self._add("/episode/start", start, 0, now_ns)
        reset = MemoryMessage(what="reset")
        told = MemoryMessage(what="instruction", instruction=start.header.instruction)
        for message in (reset, told):
            self._add("/memory", message, 0, now_ns)
        self._writer.flush()

    def write(self, sequence: int, event: Event) -> None:
        """Write an event; images are compressed without loss.

        Args:
            sequence: Its number, from 1; one left out tells a reader that an event is missing.
            event: What happened.

        Raises:
            InputError: an image that cannot be written.
            OSError: the disk refused.
        """
        if isinstance(event, Observed):
            self._write_observed(sequence, event)
        elif isinstance(event, Remembered):
            self._write_remembered(sequence, event)
        elif isinstance(event, Acted):
            chunk = ChunkMessage(
                frame=event.frame,
                state=vector_from_array(event.state),
                actions=tuple(vector_from_array(action) for action in event.chunk),
                prefix=tuple(
                    vector_from_array(action)
                    for action in (() if event.prefix is None else event.prefix)
                ),
                attempt=event.attempt,
                is_given_up=not len(event.chunk),
            )
            self._add("/chunk", chunk, sequence, event.received_ns)
        elif isinstance(event, Instructed):
            self._write_instructed(sequence, event)
        else:
            action = ActionMessage(
                step=event.step,
                targets=vector_from_array(event.action),
                state=vector_from_array(np.zeros(0) if event.state is None else event.state),
            )
            self._add("/action", action, sequence, event.received_ns)

    def flush(self) -> None:
        """Hand all that was written to the system: from now on it outlives this process."""
        self._writer.flush()

    def finish(self, sequence: int, ending: Ending | None, now_ns: int) -> None:
        """Write the ending and the file's index.

        Args:
            sequence: One more than the last event's, whether or not it was written.
            ending: None where the episode did not come to its end.
            now_ns: Monotonic.
        """
        if ending is not None:
            self._add("/episode/end", EndMessage(ending=ending), sequence, now_ns)
        self._writer.finish()

    def _write_observed(self, sequence: int, event: Observed) -> None:
        """Write images, then the joint state that closes the observation."""
        seen = event.observation
        for name, image in seen.images.items():
            message = ImageMessage(
                timestamp=time_from_ns(event.captured_ns + self._offset_ns),
                frame_id=name,
                data=png_from_image(image),
                format="png",
            )
            topic = CAMERA_TOPIC + name
            self._add(topic, message, sequence, event.received_ns, event.captured_ns)
        state = StateMessage(
            step=seen.step, cameras=tuple(seen.images), positions=vector_from_array(seen.state)
        )
        self._add("/state", state, sequence, event.received_ns, event.captured_ns)

    def _write_remembered(self, sequence: int, event: Remembered) -> None:
        """Write what left its slot, then what took it."""
        num_frames, num_gists = event.frame + 1, event.num_gists
        if event.evicted >= 0:
            gone = MemoryMessage(
                what="evicted",
                frame=event.evicted,
                slot=event.slot,
                num_frames=num_frames,
                num_gists=num_gists,
            )
            self._add("/memory", gone, sequence, event.received_ns)
        message = MemoryMessage(
            what="remembered",
            frame=event.frame,
            slot=event.slot,
            evicted=event.evicted,
            steps=event.steps,
            num_frames=num_frames,
            num_gists=num_gists,
            memory_digest=event.memory_digest,
        )
        self._add("/memory", message, sequence, event.received_ns)

    def _write_instructed(self, sequence: int, event: Instructed) -> None:
        """Write what became of memory, then the instruction."""
        reset = MemoryMessage(what="reset")
        told = MemoryMessage(what="instruction", instruction=event.instruction)
        for message in (told,) if event.keep_memory else (reset, told):
            self._add("/memory", message, sequence, event.received_ns)
        instruction = InstructionMessage(
            step=event.step, instruction=event.instruction, keep_memory=event.keep_memory
        )
        self._add("/instruction", instruction, sequence, event.received_ns)

    def _add(
        self,
        topic: str,
        message: msgspec.Struct,
        sequence: int,
        received_ns: int,
        captured_ns: int | None = None,
    ) -> None:
        """Write one message; times are given monotonic."""
        captured = received_ns if captured_ns is None else captured_ns
        self._writer.add_message(
            channel_id=self._channel(topic),
            log_time=received_ns + self._offset_ns,
            publish_time=captured + self._offset_ns,
            sequence=sequence,
            data=msgspec.json.encode(message),
        )

    def _channel(self, topic: str) -> int:
        """Return a topic's channel, made on the first call."""
        if topic not in self._channels:
            kind = CAMERA_TOPIC if topic.startswith(CAMERA_TOPIC) else topic
            schema = next(one.schema for one in KINDS if one.topic == kind)
            self._channels[topic] = self._writer.register_channel(
                topic, "json", self._schemas[schema]
            )
        return self._channels[topic]


def read_mcap(path: Path) -> Recording:
    """Look at an MCAP recording from end to end.

    Raises:
        InputError: no MCAP file, one that memorywam did not write, one of another release, or one
            whose damage begins before its header.
    """
    scan = Scan(str(path), is_decoding=False)
    damage, num_events = None, 0
    try:
        for _ in scan.events(_messages(path)):
            num_events += 1
    except DamageError as error:
        damage = str(error)
    if scan.start is None:
        raise InputError(f"{path} cannot be read at all: {damage or 'it holds no episode'}")
    if damage is None and scan.ending is None:
        damage = "the recording was not finished: it has no end of the episode"
    if damage is not None:
        damage = f"{damage}; {num_events} events can be read, {scan.reach}"

    def events() -> Iterator[Event]:
        try:
            yield from Scan(str(path), is_decoding=True).events(_messages(path))
        except DamageError:
            return

    return Recording(
        path=path,
        kind="mcap",
        header=scan.start.header,
        provenance=scan.start.provenance,
        num_events=num_events,
        ending=scan.ending,
        damage=damage,
        read=events,
    )


def _messages(path: Path) -> Iterator[RawMessage]:
    """Yield messages in the order of the file.

    Raises:
        DamageError: here the damage begins.
        InputError: a file of another kind.
    """
    topics: dict[int, str] = {}
    is_checked = False
    try:
        with _BoundedReader(FileIO(path)) as stream:
            for record in _records(stream):
                if isinstance(record, records.Header):
                    _check_profile(path, record.profile)
                elif isinstance(record, records.Channel):
                    topics[record.id] = record.topic
                elif isinstance(record, records.DataEnd):
                    is_checked = True
                elif isinstance(record, records.Message):
                    yield RawMessage(
                        topic=topics.get(record.channel_id, ""),
                        sequence=record.sequence,
                        log_ns=record.log_time,
                        publish_ns=record.publish_time,
                        data=record.data,
                    )
    except InputError:
        raise
    # In a damaged file the reader stumbles over anything: a length, a text, a checksum.
    except Exception as error:
        raise DamageError(
            f"the file is cut off or damaged ({str(error) or type(error).__name__})"
        ) from error
    if not is_checked:
        raise DamageError("the file has lost the checksum over all of its data")


class _BoundedReader(BufferedReader):
    """A file of which nobody gets more at once than a block may hold.

    The lengths inside a record are as likely damaged as all else, and are asked for in full.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most that many bytes."""
        wanted = MAX_CHUNK_BYTES if size is None or size < 0 else min(size, MAX_CHUNK_BYTES)
        return super().read(wanted)


def _check_profile(path: Path, profile: str) -> None:
    """Refuse what somebody else recorded."""
    if profile != PROFILE:
        raise InputError(
            f"{path}: found an MCAP file of profile '{profile}'; expected '{PROFILE}', as "
            "`memorywam run --record` writes them"
        )


def _records(stream: IO[bytes]) -> Iterator[records.McapRecord]:
    """Yield records, those in chunks too, each chunk after its checksum was found right."""
    reader = StreamReader(
        stream, emit_chunks=True, validate_crcs=True, record_size_limit=MAX_CHUNK_BYTES
    )
    for record in reader.records:
        if not isinstance(record, records.Chunk):
            yield record
            continue
        size = record.uncompressed_size
        if record.compression == "zstd":
            size = max(size, zstandard.get_frame_parameters(record.data).content_size)
        elif record.compression:
            raise ValueError(f"a block compressed with '{record.compression}'; expected zstd")
        if size > MAX_CHUNK_BYTES:
            raise ValueError(f"a block of {size:,} bytes; expected at most {MAX_CHUNK_BYTES:,}")
        if not record.uncompressed_crc:
            raise ValueError("a block without a checksum")
        yield from breakup_chunk(record, validate_crc=True)
