"""Another instruction in the middle of a recording comes back; those without any still read."""

import io
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("mcap", reason="needs the extra memorywam[record]")

from mcap.reader import make_reader
from tests.fakes.recordings import ending, events_of, header, mcap_bytes, same

from memorywam_runtime.recording import Acted, Instructed, Observed, open_recording
from memorywam_runtime.recordings import recording_mcap
from memorywam_runtime.recordings.recording_messages import ChunkMessage

BEFORE = Path(__file__).parents[2] / "assets" / "recording_before_instructions.mcap"
"""Written when recordings held one instruction."""


def instructed(step, *, keep_memory):
    return Instructed(
        step=step, instruction=f"press « {step} »", keep_memory=keep_memory,
        received_ns=8_000_000_000 + step,
    )  # fmt: skip


EVENTS = events_of(num_frames=3)
EVENTS.insert(5, instructed(3, keep_memory=True))
EVENTS.insert(9, instructed(6, keep_memory=False))


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "one.mcap"
    path.write_bytes(mcap_bytes(EVENTS))
    return open_recording(path)


def test_all_of_it_comes_back_in_its_place(recording):
    found = list(recording.events())
    assert recording.damage is None
    assert recording.num_events == len(EVENTS) == len(found)
    assert all(same(one, other) for one, other in zip(found, EVENTS, strict=True))
    assert recording.ending == ending()
    assert recording.header == header()


@pytest.mark.parametrize("place", [6, 10])
def test_one_that_is_left_out_ends_what_is_read(tmp_path, place):
    path = tmp_path / "one.mcap"
    path.write_bytes(mcap_bytes(EVENTS, left_out=place))
    recording = open_recording(path)
    assert recording.num_events == place - 1
    assert f"event {place} is missing" in str(recording.damage)


def test_viewers_are_told_what_became_of_memory(recording):
    with recording.path.open("rb") as stream:
        told = [
            (channel.topic, json.loads(message.data))
            for _, channel, message in make_reader(stream).iter_messages(
                topics=["/memory", "/instruction"]
            )
        ]
    changes = [fields for topic, fields in told if topic == "/instruction"]
    assert changes == [
        {"step": 3, "instruction": "press « 3 »", "keep_memory": True},
        {"step": 6, "instruction": "press « 6 »", "keep_memory": False},
    ]
    memory = [
        (one["what"], one.get("instruction", "")) for topic, one in told if topic == "/memory"
    ]
    assert [one for one in memory if one[0] in ("reset", "instruction")] == [
        ("reset", ""), ("instruction", header().instruction), ("instruction", "press « 3 »"),
        ("reset", ""), ("instruction", "press « 6 »"),
    ]  # fmt: skip


def test_a_recording_from_before_still_reads():
    content = BEFORE.read_bytes()
    summary = make_reader(io.BytesIO(content)).get_summary()
    assert summary is not None
    topics = {channel.topic for channel in summary.channels.values()}
    assert "/instruction" not in topics, "or it is none from before"
    recording = open_recording(BEFORE)
    assert recording.damage is None
    assert recording.header == header()
    assert recording.ending == ending()
    expected = events_of(num_frames=3)
    found = list(recording.events())
    assert [type(one) for one in found] == [type(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, Observed) and isinstance(other, Observed):
            assert one.observation.step == other.observation.step
            for name, image in one.observation.images.items():
                assert image.tobytes() == other.observation.images[name].tobytes()


def test_a_chunk_that_was_begun_and_given_up_comes_back(tmp_path):
    begun = next(one for one in EVENTS if isinstance(one, Acted))
    none = replace(begun, chunk=np.zeros((0, begun.chunk.shape[1])), attempt=1)
    path = tmp_path / "one.mcap"
    path.write_bytes(mcap_bytes([none, begun]))
    recording = open_recording(path)
    assert recording.damage is None
    first, second = recording.events()
    assert isinstance(first, Acted)
    assert isinstance(second, Acted)
    assert first.chunk.shape == (0, begun.chunk.shape[1])
    assert first.state.tobytes() == begun.state.tobytes()
    assert first.attempt == 1
    assert second.chunk.tobytes() == begun.chunk.tobytes()


def test_a_chunk_without_actions_that_was_not_given_up_is_damage(tmp_path, monkeypatch):
    begun = next(one for one in EVENTS if isinstance(one, Acted))
    path = tmp_path / "one.mcap"
    for chunk, is_given_up, said in (
        (begun.chunk[:0], False, "has 0 actions"), (begun.chunk, True, "has 4 actions"),
    ):  # fmt: skip

        def made(is_wrong=is_given_up, **fields):
            return msgspec.structs.replace(ChunkMessage(**fields), is_given_up=is_wrong)

        monkeypatch.setattr(recording_mcap, "ChunkMessage", made)
        path.write_bytes(mcap_bytes([replace(begun, chunk=chunk)]))
        assert said in str(open_recording(path).damage)
