import pytest

from memorywam_robot.cameras.camera_arguments import cameras_from_arguments
from memorywam_robot.cameras.shared_signal import SharedSignal, signal_from_specs

PERIOD = 33_333_333


def test_cameras_on_one_signal_and_one_beside_it():
    signal = SharedSignal(["head", "left", "right"])
    for index in range(200):
        signal.see("head", index * PERIOD)
        signal.see("left", index * PERIOD + 400_000)
        signal.see("right", index * PERIOD + PERIOD // 2)
        signal.see("nobody's", index)
    told = signal.report()
    assert list(told) == ["head and left", "head and right"]
    assert told["head and left"]["is_synchronised"] is True
    assert told["head and left"]["median_ms"] == pytest.approx(0.4)
    assert told["head and right"]["is_synchronised"] is False


def test_only_the_newest_stamps_are_kept():
    signal = SharedSignal(["head", "left"])
    for index in range(3 * 4096 + 100):
        apart = 0 if index < 4096 else PERIOD // 2  # a cable that came loose
        signal.see("head", index * PERIOD)
        signal.see("left", index * PERIOD + apart)
    told = signal.report()["head and left"]
    assert (told["num_pairs"], told["is_synchronised"]) == (4096, False)


def test_too_few_frames_say_nothing():
    told = SharedSignal(["head", "left"]).report()["head and left"]
    assert told["is_synchronised"] is None
    assert "expected 30 of each" in told["complaint"]


def test_who_shares_a_signal_is_said_by_the_arguments():
    specs = cameras_from_arguments(["a=realsense:1,master", "b=realsense:2,slave", "c=source"])
    signal = signal_from_specs(specs)
    assert signal is not None
    assert list(signal.report()) == ["a and b"]
    assert signal_from_specs(specs[1:]) is None
