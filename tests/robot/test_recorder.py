"""The recorder writes all that the policy got and gave, and never keeps the loop waiting."""

import threading
import time

import numpy as np
import pytest

pytest.importorskip("mcap", reason="needs the extra memorywam[record]")
pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")

from memorywam_robot import recorder as recorder_module
from memorywam_robot import recording_thread
from memorywam_robot.loop import run_episode
from memorywam_robot.recorder import Recorder, recording_name
from memorywam_robot.runs import policy_from_bundle, visible_from_names
from memorywam_runtime.digest import memory_digest
from memorywam_runtime.errors import InputError
from memorywam_runtime.opening import Opening
from memorywam_runtime.recording import Acted, Observed, Remembered, Sent, open_recording
from memorywam_runtime.recordings.recording_mcap import McapRecorder


class Diary:
    """Keeps everything that a subscriber hears."""

    def __init__(self):
        self.observations, self.frames, self.chunks, self.actions = [], [], [], []

    def on_episode_start(self, start):
        pass

    def on_observation(self, observation, captured_ns):
        self.observations.append((observation, captured_ns))

    def on_frame(self, frame, steps):
        self.frames.append((frame, tuple(steps)))

    def on_chunk(self, state, chunk):
        self.chunks.append((state.copy(), chunk.copy()))

    def on_step(self, step, action):
        self.actions.append((step, action.copy()))

    def on_episode_end(self, result):
        pass


@pytest.fixture(scope="module")
def policy(tiny_bundle):
    opening = Opening(num_threads=1)
    return policy_from_bundle(tiny_bundle, opening, visible_from_names("gists"))


@pytest.fixture(scope="module")
def recorded(policy, robots, tmp_path_factory):
    """One episode, recorded with memory; all that was heard, and how it went."""
    directory = tmp_path_factory.mktemp("recorded") / "of" / "today"
    diary = Diary()
    recorder = Recorder(directory, policy, robot="sim:recall", num_threads=1, records_memory=True)
    with recorder:
        result = run_episode(
            policy, robots("recall"), seed=4, instruction="random", subscribers=(recorder, diary)
        )
    (written,) = recorder.written
    return written, open_recording(written.path), diary, result, memory_digest(policy.session)


def test_the_file_is_whole_and_has_its_name(recorded):
    written, recording, _, result, digest = recorded
    assert written.path.name == "sim-recall-seed-4.mcap"
    assert [one.name for one in written.path.parent.iterdir()] == [written.path.name]
    assert not written.complaint
    assert written.num_dropped == 0
    assert written.num_bytes == written.path.stat().st_size
    assert recording.damage is None
    assert recording.num_events == written.num_events
    ending = recording.ending
    assert (ending.num_steps, ending.num_frames) == (result.num_steps, result.num_frames)
    assert ending.success == ("yes" if result.success else "no")
    assert ending.remark == result.remark
    assert ending.memory_digest == digest


def test_the_header_says_what_it_was_made_with(recorded, policy):
    _, recording, _, result, _ = recorded
    header, made = recording.header, recording.provenance
    manifest = policy.session.manifest
    assert (header.instruction, header.seed, header.max_steps) == ("random", 4, result.num_steps)
    assert header.cameras == manifest.contract.observations.cameras
    assert header.robot == "sim:recall"
    assert made.contract_hash == manifest.contract_hash
    assert made.checkpoint_sha256 == manifest.source.sha256
    assert made.hidden == ("gists",)
    assert (made.backend, made.num_threads) == ("ort", 1)
    assert made.num_denoising_steps == manifest.contract.conventions.num_steps
    assert any(one.startswith("onnxruntime==") for one in made.versions)


def test_it_holds_all_that_was_heard(recorded):
    _, recording, diary, _, _ = recorded
    events = list(recording.events())
    observed = [one for one in events if isinstance(one, Observed)]
    assert len(observed) == len(diary.observations)
    for one, (heard, captured_ns) in zip(observed, diary.observations, strict=True):
        assert one.observation.step == heard.step
        assert set(one.observation.images) == set(heard.images)
        for name, image in heard.images.items():
            np.testing.assert_array_equal(one.observation.images[name], image)
        assert one.observation.state.tobytes() == heard.state.tobytes()
        assert one.captured_ns == captured_ns <= one.received_ns
    remembered = [one for one in events if isinstance(one, Remembered)]
    assert [(one.frame, one.steps) for one in remembered] == diary.frames
    assert len({one.memory_digest for one in remembered}) == len(remembered)
    acted = [one for one in events if isinstance(one, Acted)]
    for chunk, (state, heard) in zip(acted, diary.chunks, strict=True):
        assert chunk.state.tobytes() == state.tobytes()
        assert chunk.chunk.tobytes() == heard.tobytes()
    assert [one.frame for one in acted] == [one.frame for one in remembered]
    sent = [one for one in events if isinstance(one, Sent)]
    for action, (step, heard_action) in zip(sent, diary.actions, strict=True):
        assert action.step == step
        assert action.action.tobytes() == heard_action.tobytes()
    received = [one.received_ns for one in events]
    assert received == sorted(received)


def test_it_says_what_memory_let_go(recorded, policy):
    """Two anchors keep their slots; the ring of four takes turns."""
    _, recording, _, _, _ = recorded
    remembered = [one for one in recording.events() if isinstance(one, Remembered)]
    memory = policy.contract.memory
    for one in remembered:
        held = policy.contract.num_ring_slots
        gone = one.frame - held if one.frame >= memory.num_anchors + held else -1
        assert one.evicted == gone
        assert one.num_gists == one.frame + 1
    assert remembered[-1].evicted > 0


@pytest.fixture
def fresh(policy, robots, tmp_path):
    """Run an episode with a recorder that a test has prepared."""

    def run(*, change=lambda recorder: None, subscribers=(), **options):
        recorder = Recorder(tmp_path, policy, robot="sim:recall", **options)
        change(recorder)
        with recorder:
            result = run_episode(
                policy,
                robots("recall"),
                instruction="random",
                subscribers=(recorder, *subscribers),
            )
        return recorder.written[-1], result

    return run


def test_a_disk_that_does_not_keep_up_costs_events_and_no_time(fresh, monkeypatch):
    gate = threading.Event()
    write = McapRecorder.write

    def slow(self, sequence, event):
        gate.wait(30)
        write(self, sequence, event)

    monkeypatch.setattr(McapRecorder, "write", slow)
    finish = recording_thread.RecordingThread.finish

    def opened(self, ending):
        gate.set()
        return finish(self, ending)

    monkeypatch.setattr(recording_thread.RecordingThread, "finish", opened)
    written, result = fresh(queue_events=16)
    assert result.num_steps == len(result.executed)
    assert written.num_dropped > 100
    assert "the disk did not keep up" in written.complaint
    assert written.path.name.endswith(".mcap.part")
    recording = open_recording(written.path)
    assert recording.num_events == 17  # one in the thread's hand, the others in the queue
    assert "event 18 is missing" in str(recording.damage)
    assert len(list(recording.events())) == 17


def test_a_disk_that_fails_does_not_stop_the_robot(fresh, monkeypatch):
    write = McapRecorder.write

    def full(self, sequence, event):
        if sequence > 50:
            raise OSError(28, "No space left on device")
        write(self, sequence, event)

    monkeypatch.setattr(McapRecorder, "write", full)
    written, result = fresh()
    assert result.num_steps == len(result.executed)
    assert "writing failed: [Errno 28] No space left on device" in written.complaint
    assert written.path.name.endswith(".mcap.part")
    assert written.num_events == 50


def test_an_episode_that_fails_leaves_what_there_is(fresh, policy, robots, tmp_path):
    class Fault(Diary):
        def on_step(self, step, action):
            if step == 20:
                raise InputError("emergency stop")

    with pytest.raises(InputError, match="emergency stop"):
        fresh(subscribers=[Fault()])
    (path,) = tmp_path.iterdir()
    assert path.name == "sim-recall-seed-0.mcap.part"
    recording = open_recording(path)
    assert "was not finished" in str(recording.damage)
    assert recording.ending is None
    sent = [one.step for one in recording.events() if isinstance(one, Sent)]
    assert sent == list(range(1, 21))


def test_a_killed_process_leaves_what_was_flushed(fresh, monkeypatch, tmp_path):
    """What is on disk while an episode runs can be read, by another process, at any time."""
    monkeypatch.setattr(recording_thread, "_FLUSH_S", 0.0)
    found = []

    class Reader(Diary):
        def on_step(self, step, action):
            if step in (50, 100):
                (path,) = tmp_path.iterdir()
                deadline_s = time.monotonic() + 20
                while open_recording(path).num_events < step and time.monotonic() < deadline_s:
                    time.sleep(0.01)
                found.append(open_recording(path))

    fresh(subscribers=[Reader()])
    assert [one.num_events >= step for one, step in zip(found, (50, 100), strict=True)] == [
        True
    ] * 2
    assert all(one.damage for one in found)


def test_nothing_is_written_over(fresh, policy, tmp_path):
    fresh()
    recorder = Recorder(tmp_path, policy, robot="sim:recall")
    with pytest.raises(InputError, match="an earlier recording; expected none of this robot"):
        recorder.check_seeds([1, 0])
    (tmp_path / "sim-recall-seed-7.mcap.part").write_bytes(b"")
    with pytest.raises(InputError, match=r"sim-recall-seed-7.mcap.part, an earlier recording"):
        recorder.check_seeds([7])
    with pytest.raises(InputError, match="found seed -1; expected 0 to"):
        recorder.check_seeds([-1])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a directory for recordings"):
        Recorder(tmp_path / "file", policy, robot="sim:recall")


def test_it_hears_nothing_without_an_episode(policy, tmp_path):
    recorder = Recorder(tmp_path, policy, robot="sim:recall")
    with pytest.raises(InputError, match="no episode has started"):
        recorder.on_step(1, np.zeros(14))
    recorder.close()
    assert recorder.written == []


def test_a_session_without_a_bundle_is_not_recorded(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(policy.session, "root", None)
    with pytest.raises(InputError, match="has no bundle: its episodes could not be replayed"):
        Recorder(tmp_path, policy, robot="sim:recall")


def test_names():
    assert recording_name("sim:recall", 5) == "sim-recall-seed-5.mcap"
    assert recording_name("../../etc/x", 0) == "-..-etc-x-seed-0.mcap"
    assert recording_name("", 0) == "robot-seed-0.mcap"
    assert recorder_module.QUEUE_EVENTS >= 64
