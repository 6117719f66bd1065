"""Recordings through a real pipeline: played at their pace, again, and left in the middle."""

import subprocess
import sys

import numpy as np
import pytest
from tests.fakes.cameras import QUICK, frames_until, view

from memorywam_robot.cameras.realsense import RealSenseCamera
from memorywam_robot.cameras.realsense_options import RealSenseOptions
from memorywam_robot.cameras.realsense_stepped import SteppedRealSense
from memorywam_runtime.errors import InputError, MissingPartError

pytest.importorskip("pyrealsense2", reason="needs the extra memorywam[realsense]")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A recording of 30 frames at 100 Hz that the library wrote, and its images."""
    path = tmp_path_factory.mktemp("recording") / "head.db3"
    camera = SteppedRealSense("head", width=64, height=48, hz=100, domain="device", record=path)
    camera.start()
    images = [view(k) for k in range(30)]
    for k, image in enumerate(images):
        # One number is missing, and so is its time.
        index = k + (k >= 20)
        camera.inject(image, 3_000_000_000 + index * 10_000_000, 500 + index)
    camera.close()
    return path, images


def played(path, **changes):
    camera = RealSenseCamera("head", RealSenseOptions(file=path, **changes), QUICK)
    camera.start()
    return camera, frames_until(camera, "ended")


def test_a_recording_plays_back_bit_for_bit_at_its_pace_and_ends(recording):
    path, images = recording
    camera, frames = played(path)
    assert len(frames) == len(images)
    assert all(
        np.array_equal(frame.image, image) for frame, image in zip(frames, images, strict=True)
    )
    assert [frame.number for frame in frames] == [500 + k + (k >= 20) for k in range(30)]
    assert [frame.num_dropped for frame in frames] == [0] * 20 + [1] + [0] * 9
    assert {frame.clock_domain for frame in frames} == {"device"}
    assert frames[-1].received_ns - frames[0].received_ns > 290e6
    # Once a few frames told the offset, times differ as the stamps do.
    spans = np.diff([frame.captured_ns for frame in frames[10:20]])
    assert np.abs(spans - 10e6).max() < 2e6
    assert camera.counts["stalls"] == 0
    assert "end of its file" in camera.complaint
    camera.close()
    assert camera.state == "closed"


def test_translated_stamps_of_a_recording_are_taken_at_the_pace_of_playback(tmp_path):
    path = tmp_path / "global.db3"
    stepped = SteppedRealSense("head", width=64, height=48, hz=100, record=path)
    stepped.start()
    for k in range(5):
        stepped.inject(view(k), 7_000_000 + k * 10_000_000)
    stepped.close()
    camera, frames = played(path)
    assert np.diff([frame.captured_ns for frame in frames]).tolist() == [10_000_000] * 4
    assert camera.counts["clock_doubts"] == 0
    camera.close()


def test_a_recording_of_another_size_is_refused_if_one_was_asked_for(recording):
    path, _ = recording
    camera, frames = played(path, stream=(64, 48, 100))
    camera.close()
    assert len(frames) == 30
    with pytest.raises(InputError, match="gives 64x48@100 rgb8; expected 640x480@30"):
        RealSenseCamera("head", RealSenseOptions(file=path, stream=(640, 480, 30))).start()


def test_a_recording_can_be_played_again_and_left_in_the_middle(recording):
    path, images = recording
    camera = RealSenseCamera("head", RealSenseOptions(file=path), QUICK)
    for _ in range(2):
        camera.start()
        first = camera.newest()
        camera.close()
        camera.close()
        assert first is not None
        assert np.array_equal(first.image, images[first.number - 500 - (first.number > 520)])


def test_leaving_recordings_in_the_middle_never_ends_the_process(recording):
    # In a process of its own, as what is wrong here ends it.
    path, _ = recording
    code = f"""
import os, pathlib
from memorywam_robot.cameras.realsense import RealSenseFeed
from memorywam_robot.cameras.realsense_options import RealSenseOptions
for count in range(60):
    feed = RealSenseFeed(RealSenseOptions(file=pathlib.Path({str(path)!r})))
    feed.open()
    for _ in range(1 + count % 3):
        feed.wait(0.05)
    feed.close()
    if count == 4:
        before = len(os.listdir("/proc/self/task"))
assert len(os.listdir("/proc/self/task")) <= before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_no_recording_and_no_such_file(tmp_path):
    gone = RealSenseCamera("head", RealSenseOptions(file=tmp_path / "gone.db3"), QUICK)
    with pytest.raises(MissingPartError, match=r"no recording .*gone\.db3"):
        gone.start()
    wrong = tmp_path / "wrong.db3"
    wrong.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"wrong\.db3 cannot be played back"):
        RealSenseCamera("head", RealSenseOptions(file=wrong), QUICK).start()


def test_an_exposure_in_a_recording_is_never_written(recording):
    path, _ = recording
    camera, _ = played(path, is_locked=True)
    assert camera.state == "ended"
    camera.close()
