"""The view: what it shows and stores, and that nothing that becomes of it slows the robot."""

import json
import logging
import os
import signal
import socket
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from tests.fakes.faults import FaultRecord, keep

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.loop import EpisodeResult, EpisodeStart
from memorywam_robot.viewer.view import View, shrunk
from memorywam_robot.viewer.view_channel import MAX_MESSAGE_BYTES
from memorywam_robot.viewer.view_options import ViewOptions, ViewRules
from memorywam_runtime.errors import InputError
from memorywam_runtime.observation import Observation

pytest.importorskip("foxglove")
START = EpisodeStart(seed=7, instruction="press the red button", num_steps=100)
MS = 1_000_000
SECOND = 1000 * MS
"""The longest call may be put off by the scheduler of a busy machine; a stall would be seconds."""
LONGEST_NS = 300 * MS


@pytest.fixture
def contract():
    return contract_from_preset("tiny")


@pytest.fixture
def open_view(contract):
    views = []

    def opened(file=None, rules=None, **limits):
        views.append(
            View(ViewOptions(file=file, port=0), contract, max_frames=40, rules=rules, **limits)
        )
        return views[-1]

    yield opened
    for view in views:
        view.close()


def _observation(contract, step, rows=480, columns=640, value=None):
    rng = np.random.default_rng(step)
    images = {
        camera: rng.integers(0, 255, (rows, columns, 3), np.uint8)
        if value is None
        else np.full((rows, columns, 3), value, np.uint8)
        for camera in contract.observations.cameras
    }
    return Observation(images=images, state=np.zeros(contract.actions.state_dim), step=step)


def _messages(file: Path):
    """Topic to its messages as (log time, data)."""
    from mcap.reader import make_reader

    found: dict[str, list[tuple[int, bytes]]] = {}
    with file.open("rb") as stream:
        for _, channel, message in make_reader(stream).iter_messages():
            found.setdefault(channel.topic, []).append((message.log_time, message.data))
    return found


def _objects(found, topic):
    return [json.loads(data) for _, data in found[topic]]


def _episode(view, contract, num_steps=40):
    """Tell of an episode at its own pace of 0.1 s a step; return the longest call."""
    dims = contract.actions.action_dim
    view.on_episode_start(START)
    for step in range(num_steps):
        if not step % contract.observations.steps_per_image:
            view.on_observation(_observation(contract, step), step * SECOND // 10)
        if not step % contract.steps_per_frame:
            view.on_frame(step // contract.steps_per_frame, [step])
            view.on_chunk(np.zeros(dims), np.zeros((contract.actions.horizon, dims)))
        view.on_step(step + 1, np.full(dims, step / 100))
    view.on_episode_end(
        EpisodeResult(
            seed=7, instruction="", success=True, remark="red", num_steps=num_steps, num_frames=3,
            seconds=1.0, executed=np.zeros((0, dims)), remember_ms=(), act_ms=(),
        )
    )  # fmt: skip


def test_a_stored_episode_holds_what_happened(tmp_path, open_view, contract):
    dims = contract.actions.action_dim
    view = open_view(tmp_path / "view.mcap", lower=np.full(dims, -1.0), upper=np.full(dims, 1.0))
    _episode(view, contract)
    view.on_status({"mode": "following", "late_p99_ms": float("nan"), "joints": np.zeros(2)})
    view.close()
    found = _messages(tmp_path / "view.mcap")
    assert view.num_dropped == view.num_refused == 0
    assert _objects(found, "/episode") == [
        {"seed": 7, "instruction": "press the red button", "num_steps": 100}
    ]
    assert len(found["/step"]) == 40
    last = _objects(found, "/step")[-1]
    assert last["action"] == [0.39] * dims
    assert last["of_range"] == pytest.approx([0.695] * dims)
    assert _objects(found, "/limits")[0]["upper"] == [1.0] * dims
    assert _objects(found, "/status")[0]["mode"] == "following"
    assert np.shape(_objects(found, "/chunk")[0]["actions"]) == (contract.actions.horizon, dims)
    assert _objects(found, "/result")[0] == {
        "success": True, "remark": "red", "num_frames": 3, "num_steps": 40,
    }  # fmt: skip
    memory = _objects(found, "/memory")
    assert [one["frame"] for one in memory] == list(range(len(memory)))
    assert memory[0] | {"fill": 0} == {
        "frame": 0, "anchors": 1, "recent": 0, "gists": 1, "max_frames": 40, "fill": 0,
    }  # fmt: skip
    assert memory[0]["fill"] == pytest.approx(1 / 40)


def test_images_are_what_the_cameras_saw_at_their_time(tmp_path, open_view, contract):
    view = open_view(tmp_path / "view.mcap")
    camera = contract.observations.cameras[0]
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, 320:] = (200, 40, 10)
    seen = Observation(images={camera: image}, state=np.zeros(14), step=0)
    view.on_observation(seen, 5 * SECOND)
    view.close()
    ((time_ns, data),) = _messages(tmp_path / "view.mcap")[f"/anchor/{camera}"]
    assert time_ns == 5 * SECOND
    jpeg = np.asarray(Pillow.open(BytesIO(data[data.index(b"\xff\xd8") :])), np.int32)
    assert jpeg.shape == (120, 160, 3)
    assert np.abs(jpeg[:, :75]).max() < 12
    assert np.abs(jpeg[:, 85:] - (200, 40, 10)).max() < 12


def test_images_are_limited_to_a_rate_and_anchors_are_not(tmp_path, open_view, contract):
    view = open_view(tmp_path / "view.mcap", ViewRules(image_hz=5.0))
    view.on_episode_start(START)
    small = {"rows": 8, "columns": 8}
    for tick in range(30):  # 3 s at 10 Hz, of steps that are never a frame's last but the first
        step = 0 if tick == 0 else contract.steps_per_frame * 100 + 1
        view.on_observation(_observation(contract, step, **small), tick * SECOND // 10)
    anchor = contract.steps_per_frame * (contract.memory.num_anchors - 1)
    view.on_observation(_observation(contract, anchor, **small), 29 * SECOND // 10 + 1)
    view.on_observation(
        _observation(contract, anchor + contract.steps_per_frame, **small), 29 * SECOND // 10 + 2
    )
    view.close()
    found = _messages(tmp_path / "view.mcap")
    for camera in contract.observations.cameras:
        assert len(found[f"/anchor/{camera}"]) == 1 + (anchor > 0)
        assert len(found[f"/camera/{camera}"]) == 14


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((480, 640, 3), (120, 160, 4)),
        ((480, 642, 3), (120, 161, 3)),
        ((120, 160, 3), (120, 160, 3)),
        ((1080, 1920, 3), (90, 160, 4)),
    ],
)
def test_shrunk_images_keep_their_pixels(shape, expected):
    image = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    small = shrunk(image, 80_000)
    every = shape[0] // expected[0]
    assert small.shape == expected
    assert np.array_equal(small[:, :, :3], image[::every, ::every])
    assert small.nbytes < MAX_MESSAGE_BYTES


def test_a_live_client_sees_what_happens(open_view, contract):
    """A real client of Foxglove's protocol, from another package."""
    connect = pytest.importorskip("websockets.sync.client").connect
    view = open_view()
    view.on_episode_start(START)
    with connect(view.address, subprotocols=["foxglove.sdk.v1"]) as client:
        channels: dict[str, int] = {}
        deadline_s = time.monotonic() + 10
        while "/episode" not in channels and time.monotonic() < deadline_s:
            told = client.recv(timeout=10)
            if isinstance(told, str) and json.loads(told)["op"] == "advertise":
                channels |= {one["topic"]: one["id"] for one in json.loads(told)["channels"]}
        subscription = {"id": 1, "channelId": channels["/episode"]}
        client.send(json.dumps({"op": "subscribe", "subscriptions": [subscription]}))
        got = None
        while got is None and time.monotonic() < deadline_s:
            view.on_episode_start(START)
            try:
                told = client.recv(timeout=0.1)
            except TimeoutError:
                continue
            got = told if isinstance(told, bytes) else None
    assert got is not None
    assert json.loads(got[13:])["instruction"] == "press the red button"


def _hammer(view, contract, count):
    """Tell far more than a robot does; return the longest call of each kind and the median."""
    action = np.zeros(contract.actions.action_dim)
    seen = _observation(contract, 1)
    small, large = [], []
    for index in range(count):
        started_ns = time.monotonic_ns()
        view.on_step(index, action)
        small.append(time.monotonic_ns() - started_ns)
        if not index % 10:
            started_ns = time.monotonic_ns()
            view.on_observation(seen, index * SECOND)
            large.append(time.monotonic_ns() - started_ns)
    return small, large


def test_calls_take_little_of_the_robots_time(open_view, contract):
    view = open_view(rules=ViewRules(num_waiting=16))
    small, large = _hammer(view, contract, 2000)
    assert np.median(small) < 100_000
    assert np.median(large) < 1000_000
    # Measured within the call: what the scheduler adds around one is not counted.
    assert np.median(large) / 2 <= view.longest_ns <= max(small + large)


def test_a_viewer_that_stands_still_slows_nothing(tmp_path, open_view, contract):
    view = open_view(tmp_path / "view.mcap")
    view.on_episode_start(START)
    os.kill(view.pid, signal.SIGSTOP)
    try:
        small, large = _hammer(view, contract, 3000)
    finally:
        os.kill(view.pid, signal.SIGCONT)
    assert max(small) < LONGEST_NS
    assert max(large) < LONGEST_NS
    assert np.median(small) < 100_000
    assert view.num_dropped > 2000
    assert not view.complaint
    _keep("the viewer is stopped (SIGSTOP)")
    time.sleep(0.2)
    view.on_step(5000, np.zeros(contract.actions.action_dim))
    view.close()
    steps = [one["step"] for one in _objects(_messages(tmp_path / "view.mcap"), "/step")]
    assert steps == sorted(steps)
    assert steps[-1] == 5000  # the newest is kept, the oldest dropped
    assert steps[-2] == 2999


def test_a_viewer_that_was_killed_slows_nothing_and_is_told_of_once(open_view, contract, caplog):
    view = open_view()
    view.on_episode_start(START)
    os.kill(view.pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 5
    while not view.complaint and time.monotonic() < deadline_s:
        view.on_step(1, np.zeros(contract.actions.action_dim))
    small, large = _hammer(view, contract, 1000)
    assert max(small) < LONGEST_NS
    assert max(large) < LONGEST_NS
    assert np.median(small) < 20_000
    assert "the viewer is gone" in view.complaint
    assert not caplog.records  # not in a tick
    _keep("the viewer is killed")
    with caplog.at_level(logging.WARNING):
        _episode(view, contract, 3)
        _episode(view, contract, 3)
        view.close()
        view.close()
    assert [record.message for record in caplog.records] == [view.complaint]


def test_a_viewer_that_stands_still_for_ever_is_ended(open_view, contract, caplog):
    view = open_view(rules=ViewRules(close_s=0.3))
    os.kill(view.pid, signal.SIGSTOP)
    started_s = time.monotonic()
    view.close()
    assert time.monotonic() - started_s < 3
    assert "did not end by itself" in caplog.text
    assert not Path(f"/proc/{view.pid}").exists()


def test_the_viewer_ends_with_the_robots_process(tmp_path):
    """Also if that is killed: its file is whole."""
    import subprocess
    import sys

    code = (
        "import msgspec, os, signal, sys\n"
        "from memorywam_robot.viewer.view_events import Setup, Step\n"
        "from memorywam_robot.viewer.view_process import ViewProcess\n"
        "setup = Setup(kind='foxglove', file=sys.argv[1], port=0)\n"
        "process = ViewProcess(setup, ready_s=20)\n"
        "step = Step(time_ns=1, step=3, action=[])\n"
        "process.socket.send(msgspec.msgpack.encode(step))\n"
        "print(process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    file = tmp_path / "view.mcap"
    told = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False
    )
    pid, deadline_s = int(told.stdout), time.monotonic() + 10
    while _is_running(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert [one["step"] for one in _objects(_messages(file), "/step")] == [3]


def _keep(fault):
    keep(
        FaultRecord(
            fault=fault,
            expected="goes on",
            measured_ms=None,
            target_ms=0.0,
            still=True,
            powered=True,
            reason="",
        )
    )


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_cannot_be_shown_ends_nothing(open_view):
    view = open_view()
    view.on_status({"what": object()})
    assert view.num_refused == 1
    assert not view.complaint


def test_a_taken_port_is_refused_before_anything_moves(tmp_path, contract):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = tmp_path / "view.mcap"
        with pytest.raises(InputError, match=f"port {port}.*expected a free port"):
            View(ViewOptions(file=file, port=port), contract, max_frames=4)
    assert not file.exists()
