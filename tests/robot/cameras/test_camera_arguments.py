from pathlib import Path

import pytest

from memorywam_robot.cameras.camera_arguments import CameraSpec, cameras_from_arguments
from memorywam_robot.cameras.realsense_options import RealSenseOptions
from memorywam_runtime.errors import InputError


def options(text):
    (spec,) = cameras_from_arguments([f"head={text}"])
    assert spec.realsense is not None
    return spec.realsense


def test_each_kind_is_read():
    specs = cameras_from_arguments(
        [
            "head=realsense:0123",
            "left_wrist=realsense-file:a/b=c.db3",
            "x=realsense-sim",
            "y=source",
            "z=lerobot:opencv,index_or_path=0,fps=30,extra={a: 1, b: 2}",
        ]
    )
    assert specs == (
        CameraSpec(name="head", kind="realsense", realsense=RealSenseOptions(serial="0123")),
        CameraSpec(
            name="left_wrist",
            kind="realsense-file",
            realsense=RealSenseOptions(file=Path("a/b=c.db3")),
        ),
        CameraSpec(name="x", kind="realsense-sim"),
        CameraSpec(name="y", kind="source"),
        CameraSpec(
            name="z", kind="lerobot", lerobot="opencv,index_or_path=0,fps=30,extra={a: 1, b: 2}"
        ),
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("usb2", {"is_usb2_allowed": True}),
        ("lock,master", {"is_locked": True, "sync": "master"}),
        ("slave,1280x720@15", {"sync": "slave", "stream": (1280, 720, 15)}),
    ],
)
def test_options_of_a_device(words, expected):
    assert options(f"realsense:7,{words}") == RealSenseOptions(serial="7", **expected)


def test_a_file_may_be_asked_for_its_stream():
    assert options("realsense-file:a.db3,64x48@30").stream == (64, 48, 30)
    assert options("realsense-file:a.db3").wanted is None
    assert options("realsense:7").wanted == (640, 480, 30)


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        (["head"], "NAME=KIND"),
        (["=realsense:7"], "NAME=KIND"),
        (["a b=realsense:7"], "NAME=KIND"),
        (["head="], "one of realsense, realsense-file, realsense-sim, source"),
        (["head=webcam:0"], "of the kind 'webcam'"),
        (["head=realsense"], "expected realsense:SERIAL"),
        (["head=realsense:"], "expected realsense:SERIAL"),
        (["head=realsense-file"], "expected realsense-file:PATH"),
        (["head=realsense-sim:7"], "expected realsense-sim alone"),
        (["head=realsense-sim,usb2"], "each at most once: none"),
        (["head=realsense-file:a.db3,usb2"], "options of realsense-file are.*WIDTHxHEIGHT@HZ"),
        (["head=realsense:7,usb3"], "option 'usb3'.*usb2, lock, master, slave"),
        (["head=realsense:7,usb2,usb2"], "at most once"),
        (["head=realsense:7,64x48@30,64x48@15"], "at most once"),
        (["head=realsense:7,"], "option ''"),
        (["head=realsense:7,0x48@30"], "option '0x48@30'"),
        (["head=realsense:7,master,slave"], "master and slave"),
        (["a=realsense:7", "a=realsense:8"], "'a' is given twice"),
        (["a=realsense:7", "b=realsense:7"], "'a' and 'b' are both the device 7"),
        (["a=lerobot:opencv,i=0", "b=lerobot:opencv,i=0"], "'a' and 'b' are both opencv,i=0"),
        (["a=lerobot"], "expected lerobot:TYPE"),
        (["a=lerobot:opencv,fps"], "expected key=value"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_would_be(texts, match):
    with pytest.raises(InputError, match=match):
        cameras_from_arguments(texts)


def test_options_need_one_origin_and_a_stream_that_is_one():
    with pytest.raises(InputError, match="one of the two"):
        RealSenseOptions()
    with pytest.raises(InputError, match="one of the two"):
        RealSenseOptions(serial="7", file=Path("a"))
    with pytest.raises(InputError, match="above 0"):
        RealSenseOptions(serial="7", stream=(640, 0, 30))
