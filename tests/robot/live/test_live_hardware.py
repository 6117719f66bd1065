"""Arms by a driver of one's own and cameras by name: what fits, what is refused, a dry run."""

import json

import numpy as np
import pytest

from memorywam_robot.cameras.camera_arguments import cameras_from_arguments
from memorywam_robot.live.live_hardware import LiveHardware, read_limits
from memorywam_robot.robot import Job
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.cli import main
from memorywam_runtime.errors import InputError

pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
pytest.importorskip("pyrealsense2", reason="needs the extra memorywam[realsense]")

NUM_JOINTS = 14
CAMERAS = ("left_wrist", "right_wrist", "head")
DRIVER = f"python:tests.fakes.arm_drivers:open_lagging:joints={NUM_JOINTS}"
SHEET = {
    "lower": [-3.0] * NUM_JOINTS,
    "upper": [3.0] * NUM_JOINTS,
    "velocity": [6.0] * NUM_JOINTS,
    "acceleration": [40.0] * NUM_JOINTS,
}


@pytest.fixture
def limits(tmp_path):
    path = tmp_path / "limits.json"
    path.write_text(json.dumps(SHEET))
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    from memorywam_robot.cameras.realsense_stepped import SteppedRealSense

    folder = tmp_path_factory.mktemp("cameras")
    for name in CAMERAS:
        camera = SteppedRealSense(name, width=64, height=48, hz=30, record=folder / f"{name}.db3")
        camera.start()
        for number in range(300):  # 10 s: a second to settle, and time to spare
            image = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
            camera.inject(image, (number + 1) * 33_000_000)
        camera.close()
    return [f"{name}=realsense-file:{folder / name}.db3" for name in CAMERAS]


@pytest.fixture
def contract(tiny_bundle):
    return read_manifest(tiny_bundle).contract


def test_a_makers_sheet_is_halved(limits, contract):
    made, sheet = read_limits(limits, contract)
    assert made.velocity.tolist() == [3.0] * NUM_JOINTS
    assert made.acceleration.tolist() == [20.0] * NUM_JOINTS
    assert sheet.home is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lower": [0.0] * 3}, "is of 3 joints; expected the contract's 14"),
        ({"speed": []}, "unknown field `speed`"),
        ({"upper": [-4.0] * NUM_JOINTS}, "lower the smaller"),
    ],
)
def test_a_sheet_of_another_form_is_refused(limits, contract, change, words):
    limits.write_text(json.dumps(SHEET | change))
    with pytest.raises(InputError, match=words):
        read_limits(limits, contract)


def test_a_camera_too_few_is_refused_before_anything_opens(limits, contract, recordings):
    specs = cameras_from_arguments(recordings[:2])
    with pytest.raises(
        InputError, match=r"expected left_wrist, right_wrist, head.*realsense:SERIAL"
    ):
        LiveHardware(
            "python:nowhere:at_all",
            specs,
            contract,
            limits=limits,
            job=Job(instruction="random", num_steps=5),
        )


def test_a_dry_run_opens_eyes_and_arms_and_moves_nothing(
    tiny_bundle, recordings, limits, tmp_path, capsys
):
    told = tmp_path / "told.json"
    status = main(
        ["run", str(tiny_bundle), "--async", "--dry-run", "--robot", f"driver:{DRIVER}",
         "--limits", str(limits), "--instruction", "random", "--cameras", *recordings,
         "--latency", "10,20", "--threads", "1", "--json", str(told)]
    )  # fmt: skip
    said = capsys.readouterr().out
    found = json.loads(told.read_text())["data"]["dry_run"]
    assert status == 0, found
    assert found["cameras"] == dict.fromkeys(CAMERAS, "ok")
    assert found["arms"] == "holding"
    assert found["is_powered"] is True
    assert found["first_step_rad"] > 0
    assert "no command was sent" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--robot", f"driver:{DRIVER}"], "driver:... without --limits FILE or --instruction"),
        (["--robot", "lerobot:so101_follower"], "lerobot:... without --limits FILE or"),
        (["--robot", "gym:x"], "expected sim:TASK, or in real time driver:python:MODULE:FUNCTION"),
    ],
)
def test_what_arms_need_is_asked_for_before_anything_is_measured(tiny_bundle, words, said, capsys):
    assert main(["run", str(tiny_bundle), "--async", "--threads", "1", *words]) == 2
    assert said in capsys.readouterr().err


def test_arms_of_lerobot_are_opened_by_their_own_process(tiny_bundle, recordings, limits, capsys):
    pytest.importorskip("onnxruntime")
    status = main(
        ["run", str(tiny_bundle), "--async", "--dry-run", "--robot", "lerobot:so101_follower",
         "--limits", str(limits), "--instruction", "random", "--cameras", *recordings,
         "--latency", "10,20", "--threads", "1"]
    )  # fmt: skip
    assert status == 2
    assert "found no unit for 'rad'; expected units=rad:UNIT" in capsys.readouterr().err
