"""What the doctor finds for the robot: cameras, their bus, ticks, speed."""

from dataclasses import replace
from pathlib import Path

import pytest

from memorywam_robot.arms import real_time
from memorywam_robot.doctor import findings
from memorywam_robot.doctor_budget import budget_finding
from memorywam_robot.doctor_cameras import SeenCamera, camera_findings, seen_cameras
from memorywam_robot.doctor_ticks import TickRules, TickTest, tick_findings
from memorywam_robot.doctor_usb import usb_findings
from memorywam_robot.live.load import LoadRules
from memorywam_runtime.doctor import doctor_machine
from memorywam_runtime.doctor.doctor_finding import Asked
from memorywam_runtime.errors import InputError, MissingPartError

D435 = SeenCamera(
    serial="838212070101",
    name="Intel RealSense D435",
    firmware="5.16.0.1",
    recommended="5.16.0.1",
    usb="3.2",
    has_global_time=True,
)
IN_TIME = TickTest(hz=50.0, late_p99_ms=1.9, late_max_ms=9.0, is_scheduled=True, is_locked=True)


def _cameras(*seen, argument="head=realsense:838212070101"):
    return [
        (one.status, one.found, one.fix) for one in camera_findings([argument], lambda: [*seen])
    ]


def test_a_camera_in_order():
    assert _cameras(D435) == [
        ("ok", "Intel RealSense D435 838212070101, firmware 5.16.0.1, USB 3.2", "")
    ]


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"usb": "2.1"}, "missing", "on USB 2.1"),
        ({"firmware": "5.9.14.0"}, "warn", "firmware 5.9.14.0 is older"),
        ({"has_global_time": False}, "warn", "its own clock alone"),
    ],
)
def test_a_camera_with_a_flaw(change, status, said):
    (_, (found_status, found, fix)) = _cameras(replace(D435, **change))
    assert (found_status, said in found, bool(fix)) == (status, True, True)


def test_a_slow_port_that_was_allowed():
    argument = "head=realsense:838212070101,usb2"
    assert len(_cameras(replace(D435, usb="2.1"), argument=argument)) == 1


def test_a_camera_that_is_not_there():
    ((status, found, _), other) = _cameras(replace(D435, serial="9"))
    assert (status, found) == ("missing", "no RealSense with serial 838212070101; plugged in: 9")
    assert other[1] == "Intel RealSense D435 9, which nobody asked for"


def test_the_real_library_sees_no_camera_here():
    pytest.importorskip("pyrealsense2")
    assert all(one.serial != "000" for one in seen_cameras())
    found = list(camera_findings(["head=realsense:000"]))
    assert found[0].status == "missing"


def test_no_library():
    def refuse():
        raise MissingPartError("no pyrealsense2")

    (found,) = camera_findings(["head=realsense:1"], refuse)
    assert (found.status, found.found) == ("missing", "no pyrealsense2")


def test_recordings_and_other_kinds(tmp_path):
    path = tmp_path / "a.db3"
    (found,) = camera_findings([f"head=realsense-file:{path}"])
    assert found.status == "missing"
    path.touch()
    (found,) = camera_findings([f"head=realsense-file:{path}"])
    assert found.status == "ok"
    assert list(camera_findings(["head=source"])) == []


def test_a_misspelt_camera_is_refused():
    with pytest.raises(InputError, match="expected"):
        list(findings(Asked(cameras=("head",))))


def _usb(root: Path, **devices):
    for port, files in devices.items():
        folder = root / "sys/bus/usb/devices" / port.replace("_", "-").replace("d", ".")
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")


CAMERA = {"idVendor": "8086", "product": "Intel(R) RealSense(TM) Depth Camera 435"}


def test_cameras_on_their_own_wires(tmp_path):
    fast = CAMERA | {"speed": "5000"}
    _usb(
        tmp_path,
        **{"usb2": {"speed": "10000", "idVendor": "1d6b"}, "2_1": fast, "2_3": fast},
        **{"1_4": {"idVendor": "8087", "product": "Bluetooth", "speed": "12"}},
    )
    found = list(usb_findings(tmp_path))
    assert [(one.part, one.status) for one in found] == [
        ("USB", "ok"), ("USB", "ok"), ("USB sharing", "ok"),
    ]  # fmt: skip
    assert found[0].found == "Intel(R) RealSense(TM) Depth Camera 435 at 2-1, 5000 Mbit/s"
    assert found[2].found.startswith("2 cameras behind root hub usb2: 37 MB/s")


def test_a_slow_cable_and_a_hub_that_is_too_narrow(tmp_path):
    slow = CAMERA | {"speed": "480"}
    hub = {"idVendor": "05e3", "product": "USB2.1 Hub", "speed": "480"}
    _usb(tmp_path, **{"usb1": {"speed": "480"}, "1_2": hub, "1_2d1": slow, "1_2d4": slow})
    found = {(one.part, one.found.partition(":")[0]): one for one in usb_findings(tmp_path)}
    statuses = {key: one.status for key, one in found.items()}
    assert statuses == {
        ("USB", f"{CAMERA['product']} at 1-2.1, 480 Mbit/s"): "warn",
        ("USB", f"{CAMERA['product']} at 1-2.4, 480 Mbit/s"): "warn",
        ("USB sharing", "2 cameras behind root hub usb1"): "warn",
        ("USB sharing", "2 cameras behind hub 1-2"): "warn",
    }
    assert all(one.fix for one in found.values())


def test_one_camera_shares_nothing(tmp_path):
    _usb(tmp_path, **{"usb2": {"speed": "10000"}, "2_1": CAMERA | {"speed": "5000"}})
    assert [one.part for one in usb_findings(tmp_path)] == ["USB"]


def test_a_machine_without_usb(tmp_path):
    assert list(usb_findings(tmp_path)) == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "ok"),
        ({"late_p99_ms": 2.1}, "warn"),
        ({"late_max_ms": 10.1}, "warn"),
        ({"hz": 49.4}, "warn"),
        ({"hz": 50.6}, "warn"),
        ({"hz": 47.4}, "missing"),
    ],
)
def test_ticks_are_judged(change, status):
    (found,) = tick_findings(found=replace(IN_TIME, **change))
    assert found.status == status
    assert bool(found.fix) == (status != "ok")


def test_without_priority_that_is_the_fix():
    (found,) = tick_findings(found=replace(IN_TIME, late_p99_ms=5.0, is_scheduled=False))
    assert found.fix.startswith("allow real-time priority")


def test_a_real_rehearsal_in_a_process_of_its_own():
    (found,) = tick_findings(TickRules(seconds=0.5, hz=100.0))
    assert " Hz of 100, late " in found.found


def test_a_device_that_is_fast_enough_and_one_that_is_not(tiny_bundle):
    patient = LoadRules(most=100.0, longest_bridge_ms=1e6)  # of a busy machine
    found = budget_finding(str(tiny_bundle), "ort", patient)
    assert found.status == "ok"
    assert found.found.startswith("ort: remember ")
    slow = budget_finding(str(tiny_bundle), "ort", replace(patient, most=1e-9))
    assert (slow.status, "expected a load" in slow.found) == ("missing", True)
    assert slow.fix.startswith("use fewer denoising steps")


def test_only_what_was_asked_for_is_looked_at(tmp_path):
    assert list(findings(Asked(root=tmp_path))) == []


def test_the_doctor_looks_for_the_priority_that_the_arms_ask_for() -> None:
    assert doctor_machine._PRIORITY == real_time._PRIORITY
