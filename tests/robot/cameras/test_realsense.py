"""Devices on a bus of software devices: found, opened, and told what to do."""

import builtins
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tests.fakes.cameras import QUICK, Bus, BusCamera, view, wait_for

from memorywam_robot.cameras import realsense
from memorywam_robot.cameras.realsense import (
    RealSenseCamera,
    RealSenseFeed,
    RealSenseInfo,
    librealsense,
    list_realsense,
)
from memorywam_robot.cameras.realsense_options import RealSenseOptions
from memorywam_runtime.errors import DeviceError, InputError, MissingPartError

rs = pytest.importorskip("pyrealsense2", reason="needs the extra memorywam[realsense]")

SMALL = (64, 48, 30)
AUTOMATIC = (
    ("auto_exposure_priority", 1.0), ("enable_auto_exposure", 0.0), ("global_time_enabled", 0.0),
    ("enable_auto_white_balance", 1.0), ("exposure", 156.0), ("gain", 64.0),
    ("white_balance", 4600.0), ("inter_cam_sync_mode", 0.0), ("frames_queue_size", 16.0),
)  # fmt: skip


@pytest.fixture
def bus(monkeypatch):
    made = Bus(rs)
    monkeypatch.setattr(realsense, "librealsense", lambda: made)
    monkeypatch.setattr(realsense, "_context", lambda: made)
    return made


@pytest.fixture
def plugged(bus):
    def plug(serial="7", **changes):
        camera = BusCamera(rs, serial, **changes)
        bus.devices.append(camera)
        return camera

    return plug


def feed_of(serial="7", **changes):
    return RealSenseFeed(RealSenseOptions(**{"serial": serial, "stream": SMALL} | changes))


@pytest.fixture
def opened():
    feeds = []

    def open_feed(*args, **changes):
        feed = feed_of(*args, **changes)
        feeds.append(feed)
        feed.open()
        return feed

    yield open_feed
    for feed in feeds:
        feed.close()


def test_a_device_gives_its_frames_in_order_with_all_that_they_carry(plugged, opened):
    camera = plugged()
    feed = opened()
    assert feed.period_ns == 33_333_333
    images = [view(k) for k in range(20)]
    for k, image in enumerate(images):
        camera.send(image, 40 + k, 1000.5 + 33.25 * k, frame_counter=40 + k)
    raws = [feed.wait(0.1) for _ in images]
    assert feed.wait(0.01) is None
    assert all(np.array_equal(raw.image, image) for raw, image in zip(raws, images, strict=True))
    assert [raw.number for raw in raws] == list(range(40, 60))
    assert [raw.stamp_ns for raw in raws] == [1_000_500_000 + 33_250_000 * k for k in range(20)]
    assert {(raw.domain, raw.has_metadata) for raw in raws} == {("device", True)}


def test_a_frame_that_was_given_is_not_written_over(plugged, opened):
    camera = plugged()
    feed = opened()
    camera.send(view(0), 1, 1.0)
    first = feed.wait(0.1)
    kept = first.image.copy()
    for k in range(80):
        camera.send(view(k + 1), k + 2, 33.0 * k)
        feed.wait(0.1)
    assert np.array_equal(first.image, kept)


def test_one_camera_among_others_is_found_by_its_serial(plugged, opened):
    plugged("1")
    camera = plugged("2")
    feed = opened("2")
    camera.send(view(0), 9, 1.0)
    assert feed.wait(0.1).number == 9


@pytest.mark.parametrize(("serials", "found"), [((), "none"), (("8", "5"), "5, 8")])
def test_a_serial_that_is_not_there_names_those_that_are(plugged, serials, found):
    for serial in serials:
        plugged(serial)
    with pytest.raises(MissingPartError, match=f"no RealSense with serial 7; found {found}"):
        feed_of().open()


@pytest.mark.parametrize("usb", ["2.1", "2.0", "1.1"])
def test_a_slow_port_is_refused_unless_told(plugged, opened, usb):
    camera = plugged(usb=usb)
    with pytest.raises(InputError, match=f"on USB {usb}; expected 3 or more"):
        feed_of().open()
    feed = opened(is_usb2_allowed=True)
    camera.send(view(0), 9, 1.0)
    assert feed.wait(0.1).number == 9


@pytest.mark.parametrize("usb", ["3", "3.1", "3.2", None, "GMSL"])
def test_other_ports_are_taken(plugged, opened, usb):
    plugged(usb=usb)
    opened()


def test_a_stream_that_is_not_offered_is_refused_with_those_that_are(plugged):
    plugged()
    with pytest.raises(InputError, match="no colour stream 640x480@30 rgb8; it offers 64x48@30"):
        feed_of(stream=None).open()


def test_a_stream_other_than_asked_for_is_refused(plugged, monkeypatch):
    camera = plugged(stream=(64, 48, 15))
    monkeypatch.setattr("tests.fakes.cameras.BusConfig.can_resolve", lambda *_: True)
    with pytest.raises(InputError, match="gives 64x48@15 rgb8; expected 64x48@30 rgb8"):
        feed_of().open()
    # It was let go of.
    camera.sensor.open(camera.profile)


def test_a_device_without_colour_is_refused(bus):
    camera = BusCamera(rs, "7")
    camera.device = rs.software_device()
    camera.device.register_info(rs.camera_info.serial_number, "7")
    camera.device.register_info(rs.camera_info.name, "Intel RealSense T265")
    camera.device.add_sensor("Tracking")
    bus.devices.append(camera)
    with pytest.raises(InputError, match="T265 has no colour stream"):
        feed_of().open()


def test_options_are_written_before_the_stream_and_never_again(plugged, opened):
    camera = plugged(options=AUTOMATIC)
    feed = opened()
    assert camera.option("auto_exposure_priority") == 0
    assert camera.option("enable_auto_exposure") == 1
    assert camera.option("global_time_enabled") == 1
    assert camera.option("frames_queue_size") == 32
    assert camera.option("inter_cam_sync_mode") == 0
    camera.sensor.set_option(rs.option.auto_exposure_priority, 1.0)
    camera.send(view(0), 1, 1.0)
    feed.wait(0.1)
    assert not feed.settled()
    assert camera.option("auto_exposure_priority") == 1
    assert camera.option("enable_auto_exposure") == 1


def test_exposure_is_locked_where_it_has_settled(plugged, opened):
    camera = plugged(options=AUTOMATIC)
    feed = opened(is_locked=True)
    camera.sensor.set_option(rs.option.exposure, 312.0)
    assert feed.settled()
    assert camera.option("enable_auto_exposure") == 0
    assert camera.option("enable_auto_white_balance") == 0
    assert (camera.option("exposure"), camera.option("gain")) == (312.0, 64.0)


def test_a_sensor_without_an_automatic_has_nothing_to_lock(plugged, opened):
    plugged()
    assert not opened(is_locked=True).settled()


@pytest.mark.parametrize(("sync", "mode"), [("master", 1.0), ("slave", 2.0)])
def test_hardware_sync_is_written_or_refused(plugged, opened, sync, mode):
    camera = plugged(options=AUTOMATIC)
    opened(sync=sync)
    assert camera.option("inter_cam_sync_mode") == mode
    plugged("8")
    with pytest.raises(InputError, match=f"RGB Camera cannot be synchronised.*{sync}"):
        feed_of("8", sync=sync).open()


def test_what_the_library_says_is_named(bus, plugged):
    plugged()
    bus.is_broken = True
    with pytest.raises(DeviceError, match="camera 7 does not start: failed to set power state"):
        feed_of().open()


def test_the_hardware_is_reset_by_its_serial(plugged):
    other, camera = plugged("1"), plugged()
    feed_of().reset()
    assert (other.resets, camera.resets) == (0, 1)
    with pytest.raises(MissingPartError, match="no RealSense"):
        feed_of("9").reset()


def test_a_camera_climbs_the_ladder_to_a_reset(bus, plugged):
    camera = plugged()
    camera.on_reset = lambda: setattr(bus, "is_broken", False)
    number = iter(range(1, 10**6))
    live = RealSenseCamera("head", RealSenseOptions(serial="7", stream=SMALL), QUICK)
    bus.is_broken = True

    def send():
        k = next(number)
        if not bus.is_broken:
            camera.send(view(k), k, k * 5.0)
        return live.state

    starting = threading.Thread(target=live.start)
    starting.start()
    wait_for(lambda: send() == "ok")
    starting.join()
    assert (camera.resets, live.counts["resets"]) == (1, 1)
    # It leaves the bus, and is given up.
    bus.devices.clear()
    wait_for(lambda: live.state == "lost")
    assert "no RealSense with serial 7" in live.complaint
    assert live.counts["resets"] == 1
    live.close()


def test_cameras_are_listed_in_no_time(plugged):
    assert list_realsense() == []
    plugged("3", usb="2.1")
    plugged("4", usb=None)
    started_s = time.perf_counter()
    found = list_realsense()
    assert time.perf_counter() - started_s < 0.1
    assert found == [
        RealSenseInfo(serial="3", name="Intel RealSense D435", firmware="5.17.0", usb="2.1"),
        RealSenseInfo(serial="4", name="Intel RealSense D435", firmware="5.17.0", usb=""),
    ]


def test_the_real_bus_of_this_machine_can_be_listed():
    assert isinstance(list_realsense(), list)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    for call in (librealsense, list_realsense, feed_of().open):
        with pytest.raises(MissingPartError, match=r"pip install 'memorywam\[realsense\]'"):
            call()


def test_all_modules_load_without_the_library():
    names = ["opening", "arguments", "thread"]
    modules = [f"memorywam_robot.cameras.camera_{name}" for name in names]
    modules += ["memorywam_robot.cameras.realsense_stepped", "memorywam_robot.cameras.frame_faults"]
    code = f"import sys; sys.modules['pyrealsense2'] = None; import {', '.join(modules)}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_its_usb_library_that_is_named(monkeypatch):
    found = builtins.__import__

    def no_usb(name, *args, **kwargs):
        if name == "pyrealsense2":
            raise ImportError("libusb-1.0.so.0: cannot open shared object file")
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_usb)
    with pytest.raises(MissingPartError, match=r"libusb-1.0.so.0.*apt install libusb-1.0-0"):
        librealsense()
