"""Cameras too slow for the memory clock: refused with numbers before anything moves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.live import MS, BenchCamera, BenchPolicy, small_contract
from tests.fakes.live_bench import Bench
from tests.fakes.live_robot import NowRobot, run_of

from memorywam_robot.cameras.camera_arguments import cameras_from_arguments
from memorywam_robot.live.camera_rates import (
    asked_rates,
    check_rates,
    needed_hz,
    running_rates,
    slow_cameras,
)
from memorywam_robot.live.grid_rules import GridShape, grid_shape_from_contract
from memorywam_robot.live.live_rehearsal import rehearse_live
from memorywam_robot.live.load import load_from_measured
from memorywam_robot.live.virtual_run import VirtualRun
from memorywam_robot.live.virtual_worker import Latency
from memorywam_runtime.cli import main
from memorywam_runtime.errors import InputError

SHAPE = GridShape(cameras=("head", "wrist"), period_ns=100 * MS, images_per_frame=4, num_anchors=2)
"""Ten images a second: each is captured in the first 50 ms of its slot."""


@settings(max_examples=200, deadline=None)
@given(st.floats(2.0, 90.0), st.floats(0.0, 1.0))
def test_a_camera_that_is_fast_enough_has_an_image_for_every_slot(hz, phase):
    period_ns = round(1e9 / hz)
    times = np.arange(0, 60) * period_ns + round(phase * period_ns)
    slots = np.arange(1, int(times[-1] // SHAPE.period_ns)) * SHAPE.period_ns
    has_one = [((times >= at) & (times < at + SHAPE.period_ns / 2)).any() for at in slots]
    if hz >= needed_hz(SHAPE):
        assert all(has_one)
    if not slow_cameras(SHAPE, {"head": hz}):
        assert hz >= 0.98 * needed_hz(SHAPE)


def test_a_camera_of_half_that_rate_may_have_none_at_all():
    """Ten images a second, each a moment before its slot: the rate that was asked for at least."""
    contract = small_contract()
    rig = Bench(policy=BenchPolicy(), contract=contract, num_steps=48)
    period_ms = rig.grid.shape.period_ns // MS
    while rig.episode.phase == "running" and rig.since_ms < 5 * period_ms:
        rig.tick(images=int(rig.since_ms + 20) % period_ms == period_ms - 20)
    assert rig.episode.counts.frames <= 1
    assert rig.episode.aborted


def test_rates_as_they_are_asked_for():
    specs = cameras_from_arguments(
        ["a=realsense:1,640x480@6", "b=realsense:2", "c=realsense-file:x.db3",
         "d=realsense-file:y.db3,640x480@15", "e=realsense-sim"]
    )  # fmt: skip
    rates = asked_rates("abcdef", specs, 7.0)
    assert rates == {"a": 6.0, "b": 30.0, "d": 15.0, "e": 7.0, "f": 7.0}, "a file's is in the file"


def test_rates_as_their_streams_say():
    told, silent = BenchCamera("a"), BenchCamera("b")
    told.period_ns = 100 * MS  # type: ignore[attr-defined]
    assert running_rates([told, silent], 25.0) == {"a": 10.0, "b": 25.0}


def test_the_refusal_has_its_numbers():
    check_rates(SHAPE, {"head": 20.0, "wrist": 19.98})
    with pytest.raises(InputError) as error:
        check_rates(SHAPE, {"head": 30.0, "wrist": 2.0})
    said = str(error.value)
    for words in (
        "camera 'wrist': found 2 images a second; expected at least 20",
        "one every 100 ms, captured within 50 ms",
        "raise --camera-hz, or ask for a faster stream such as wrist=realsense:SERIAL,640x480@30",
    ):
        assert words in said
    with pytest.raises(InputError, match="found nan images"):
        check_rates(SHAPE, {"head": float("nan")})


def test_a_run_refuses_it_and_starts_nothing():
    robot = NowRobot()
    robot.cameras[1].period_ns = 500 * MS  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="found 2 images a second; expected at least 5"):
        run_of(BenchPolicy(), robot)
    assert robot.seeds == []
    assert robot.body.commands == []


def test_simulated_time_refuses_it_too():
    contract = small_contract()
    with pytest.raises(InputError, match=r"found 2.4 images a second; expected at least 5"):
        VirtualRun(
            BenchPolicy(),
            contract,
            "recall",
            load=load_from_measured(contract, remember_ms=10, act_ms=10),
            latency=Latency(remember_ms=10, step_ms=1),
            camera_hz=2.4,
        )


class Rehearsed(BenchPolicy):
    """What a dry run asks for."""

    contract = small_contract()

    def act(self, state):
        return np.array([state + 0.25])


def test_a_dry_run_names_it_and_does_not_wait():
    robot = NowRobot()
    for camera in robot.cameras:
        camera.take()
    robot.cameras[2].period_ns = 500 * MS  # type: ignore[attr-defined]
    robot.arm.is_powered = True  # type: ignore[attr-defined]
    robot.body.mode = "holding"
    policy = Rehearsed()
    load = load_from_measured(policy.contract, remember_ms=10, act_ms=10)
    found = rehearse_live(policy, robot, load, instruction="go")  # type: ignore[arg-type]
    assert found.cameras["left_wrist"] == found.cameras["right_wrist"] == "ok"
    assert found.cameras["head"].startswith("found 2 images a second; expected at least 5")
    assert not found.is_well
    robot.cameras[2].period_ns = 100 * MS  # type: ignore[attr-defined]
    assert rehearse_live(policy, robot, load, instruction="go").is_well  # type: ignore[arg-type]


def test_the_program_refuses_it_before_it_measures(tiny_bundle, capsys):
    pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
    words = ["run", str(tiny_bundle), "--async", "--robot", "sim:recall", "--instruction", "random"]
    assert main([*words, "--camera-hz", "2"]) == 2
    assert "camera 'left_wrist': found 2 images a second" in capsys.readouterr().err
    driver = ["run", str(tiny_bundle), "--async", "--robot", "driver:python:nowhere:at_all",
              "--instruction", "random", "--limits", "nowhere.json", "--cameras"]  # fmt: skip
    names = grid_shape_from_contract(small_contract()).cameras
    streams = [f"{name}=realsense:{name},640x480@{3 if name == 'head' else 30}" for name in names]
    assert main([*driver, *streams]) == 2
    assert "camera 'head': found 3 images a second" in capsys.readouterr().err
