"""An MCAP recording comes back bit for bit, reads up to any damage, and others can read it."""

import base64
import contextlib
import io
import json

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mcap", reason="needs the extra memorywam[record]")

from mcap.reader import make_reader
from mcap.writer import Writer
from tests.fakes.recordings import (
    CAMERAS,
    ending,
    events_of,
    header,
    image_at,
    mcap_bytes,
    same,
    start_message,
)

from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.images import image_from_bytes
from memorywam_runtime.observation import Observation
from memorywam_runtime.recording import Observed, Sent, open_recording
from memorywam_runtime.recordings import recording_mcap
from memorywam_runtime.recordings.recording_mcap import McapRecorder, read_mcap

CHUNK = 0x06
"""The opcode of a compressed block."""


def blocks_of(content):
    """Yield start, end and opcode of every record of a file."""
    place = 8
    while place < len(content) - 8:
        end = place + 9 + int.from_bytes(content[place + 1 : place + 9], "little")
        yield place, end, content[place]
        place = end


EVENTS = events_of(num_frames=4)
WHOLE = mcap_bytes(EVENTS)
FIRST = next(end for start, end, opcode in blocks_of(WHOLE) if opcode == CHUNK)
"""Where the block with the header ends."""
SUMMARY = int.from_bytes(WHOLE[-28:-20], "little")
"""Where the data ends and the index begins, as the file's footer says."""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Write bytes to a file and read it as a recording."""
    path = tmp_path_factory.mktemp("mcap") / "one.mcap"

    def read(content):
        path.write_bytes(content)
        return read_mcap(path)

    return read


def assert_prefix(recording):
    """All that is read is what was written, from the start."""
    found = list(recording.events())
    assert len(found) == recording.num_events <= len(EVENTS)
    assert all(same(one, other) for one, other in zip(found, EVENTS, strict=False))


def test_all_of_it_comes_back(file):
    recording = file(WHOLE)
    assert recording.damage is None
    assert recording.kind == "mcap"
    assert recording.header == header()
    assert recording.provenance == start_message().provenance
    assert recording.ending == ending()
    assert recording.num_events == len(EVENTS)
    assert_prefix(recording)
    assert [type(one) for one in recording.events()] == [type(one) for one in EVENTS]


def test_numbers_that_are_not_finite_come_back(file):
    state = np.array([1.5, np.nan, np.inf])
    seen = Observation(images={}, state=state, step=0)
    event = Observed(observation=seen, captured_ns=6_000_000_000, received_ns=6_000_000_000)
    recording = file(mcap_bytes([event]))
    (found,) = recording.events()
    np.testing.assert_array_equal(found.observation.state, [1.5, np.nan, np.nan])


@given(st.data())
@settings(max_examples=250, deadline=None)
def test_a_file_cut_off_anywhere_reads_up_to_there(file, data):
    cut = data.draw(st.integers(0, len(WHOLE) - 1))
    if cut < FIRST:
        with pytest.raises(InputError, match="cannot be read at all"):
            file(WHOLE[:cut])
        return
    recording = file(WHOLE[:cut])
    assert recording.damage is not None
    assert f"{recording.num_events} events can be read" in recording.damage
    assert_prefix(recording)


def test_more_is_read_of_a_longer_file(file):
    counts = [file(WHOLE[:cut]).num_events for cut in range(FIRST, SUMMARY, 211)]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_byte_changed_anywhere_is_never_believed(file, data):
    content = bytearray(WHOLE)
    place = data.draw(st.integers(0, len(WHOLE) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    try:
        recording = file(bytes(content))
    except InputError:
        return
    assert_prefix(recording)
    if recording.damage is None:
        assert recording.num_events == len(EVENTS)
        assert recording.ending == ending()
        assert place >= SUMMARY  # the index, which nothing here is read by


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_no_file_makes_it_fail(file, content):
    for start in (b"", WHOLE[:8], WHOLE[:60]):
        with pytest.raises(InputError):
            file(start + content)


@pytest.mark.parametrize("place", range(1, len(EVENTS) + 1, 5))
def test_an_event_left_out_ends_what_is_read(file, place):
    recording = file(mcap_bytes(EVENTS, left_out=place))
    assert recording.num_events == place - 1
    assert f"event {place} is missing" in recording.damage
    assert recording.ending is None
    assert_prefix(recording)


def test_a_block_lost_in_the_middle_is_noticed(file):
    """A reader skips what it does not know: a changed opcode would make a block vanish."""
    content = bytearray(WHOLE)
    places = [start for start, _, opcode in blocks_of(WHOLE) if opcode == CHUNK]
    content[places[2]] = 0x7F
    recording = file(bytes(content))
    assert "is missing" in recording.damage
    assert 0 < recording.num_events < len(EVENTS)
    assert_prefix(recording)


def test_an_episode_that_did_not_end(file):
    recording = file(mcap_bytes(EVENTS, ends=False))
    assert "was not finished" in recording.damage
    assert recording.num_events == len(EVENTS)
    assert recording.ending is None


def test_an_index_cut_off_leaves_the_ending(file):
    recording = file(WHOLE[:-20])
    assert recording.ending == ending()
    assert "cut off" in recording.damage
    assert recording.num_events == len(EVENTS)


def test_blocks_of_absurd_size_are_refused(file, monkeypatch):
    monkeypatch.setattr(recording_mcap, "MAX_CHUNK_BYTES", 20_000)
    zeros = np.zeros((300, 300, 3), np.uint8)
    images = {"head": zeros}
    black = Observation(images=images, state=np.zeros(300_000), step=0)
    event = Observed(observation=black, captured_ns=6_000_000_000, received_ns=6_000_000_000)
    recording = file(mcap_bytes([event]))
    assert "expected at most 20,000" in recording.damage or "exceeds" in recording.damage
    assert recording.num_events == 0


@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_no_length_is_believed(file, bit):
    """One bit changed in many a byte: of a length it may ask for more than there is."""
    for place in [*range(bit % 5, SUMMARY - 20, 11), *range(SUMMARY - 20, SUMMARY)]:
        content = bytearray(WHOLE)
        content[place] ^= bit
        with contextlib.suppress(InputError):
            recording = file(bytes(content))
            assert recording.damage is not None
            assert recording.num_events <= len(EVENTS)


def test_files_of_others_are_refused(file, tmp_path):
    stream = io.BytesIO()
    writer = Writer(stream)
    writer.start(profile="ros2")
    writer.finish()
    with pytest.raises(InputError, match="profile 'ros2'; expected 'memorywam'"):
        file(stream.getvalue())
    with pytest.raises(InputError, match="cannot be read at all"):
        file(b"PK\x03\x04 something else entirely")
    with pytest.raises(InputError, match=r"holds no episode|cannot be read at all"):
        file(b"")


def test_another_release_is_refused(file):
    import msgspec

    stream = io.BytesIO()
    start = msgspec.structs.replace(start_message(), schema_version=99)
    McapRecorder(stream, start).finish(1, ending(), 9_000_000_000)
    with pytest.raises(InputError, match="schema version 99; this release reads 1"):
        file(stream.getvalue())


def test_others_can_read_it():
    """By mcap's own reader, through the index; every message fits its channel's schema."""
    reader = make_reader(io.BytesIO(WHOLE), validate_crcs=True)
    summary = reader.get_summary()
    assert summary is not None
    topics = {channel.topic for channel in summary.channels.values()}
    cameras = {f"/camera/{name}" for name in CAMERAS}
    others = {"/episode/start", "/episode/end", "/state", "/chunk", "/action", "/memory",
              "/instruction"}  # fmt: skip
    assert topics == cameras | others
    assert all(channel.message_encoding == "json" for channel in summary.channels.values())
    counts: dict[str, int] = {}
    offset_ns = start_message().wall.ns - start_message().monotonic.ns
    for schema, channel, message in reader.iter_messages():
        assert schema is not None
        assert schema.encoding == "jsonschema"
        shape = json.loads(schema.data)
        assert shape["type"] == "object"
        jsonschema.Draft202012Validator.check_schema(shape)
        value = json.loads(message.data)
        jsonschema.validate(value, shape, jsonschema.Draft202012Validator)
        assert message.publish_time <= message.log_time
        counts[channel.topic] = counts.get(channel.topic, 0) + 1
        if channel.topic == "/camera/head":
            assert schema.name == "foxglove.CompressedImage"
            step = 4 * (counts[channel.topic] - 1)
            picture = image_from_bytes(base64.b64decode(value["data"]), "it")
            np.testing.assert_array_equal(picture, image_at("head", step))
            sent_ns = value["timestamp"]["sec"] * 10**9 + value["timestamp"]["nsec"]
            assert sent_ns == message.publish_time
            observed = [one for one in EVENTS if isinstance(one, Observed)]
            event = next(one for one in observed if one.observation.step == step)
            assert message.publish_time - offset_ns == event.captured_ns
            assert message.log_time - offset_ns == event.received_ns
    assert counts["/state"] == counts["/camera/head"] == counts["/camera/wrist"] == 4
    assert counts["/action"] == sum(isinstance(one, Sent) for one in EVENTS)
    assert counts["/memory"] == 2 + 4 + 2  # reset, instruction; remembered; evicted
    assert counts["/episode/start"] == counts["/episode/end"] == 1


def test_the_schemas_hold_nothing_that_viewers_stumble_over():
    from memorywam_runtime.recordings.recording_messages import recording_schema

    text = json.dumps(recording_schema())
    for word in ("$ref", "$defs", "anyOf", "oneOf"):
        assert word not in text
    image = recording_schema()["foxglove.CompressedImage"]["properties"]
    assert set(image) == {"timestamp", "frame_id", "data", "format"}
    assert image["data"]["contentEncoding"] == "base64"


def test_it_is_opened_by_what_it_is(file, tmp_path):
    path = tmp_path / "episode.mcap.part"
    path.write_bytes(WHOLE)
    assert open_recording(path).num_events == len(EVENTS)
    with pytest.raises(InputError, match="holds one; expected 0"):
        open_recording(path, episode=1)


def test_without_the_package_the_extra_is_named(monkeypatch):
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, "mcap", None)
    monkeypatch.delitem(sys.modules, "memorywam_runtime.recordings.recording_mcap")
    with pytest.raises(MissingPartError, match=r"pip install 'memorywam\[record\]'"):
        importlib.import_module("memorywam_runtime.recordings.recording_mcap")
