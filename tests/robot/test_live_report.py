"""What `run --async` tells of its deadlines: in the note, for machines, and on the page."""

import json
from argparse import Namespace
from dataclasses import replace
from typing import Any

from tests.fakes.live_bench import bench

from memorywam_robot import live_cli
from memorywam_robot.live import camera_rates, live_run
from memorywam_robot.live.live_result import result_of
from memorywam_robot.live_report import run_outcome
from memorywam_robot.robot import Verdict
from memorywam_robot.summary import report_from_json, summary_html
from memorywam_runtime.errors import DeviceError
from memorywam_runtime.report import json_from_data


def test_the_rate_kept_the_worst_tick_and_the_headroom_are_told():
    rig = bench(num_steps=40)
    rig.run()
    result = result_of(rig.episode, Verdict(success=None), 4.0, 0.0)
    results = [
        replace(result, kept_hz=49.75, worst_tick_ms=22.0),
        replace(result, kept_hz=49.5, worst_tick_ms=21.0),
    ]
    policy: Any = Namespace(session=Namespace(timings=Namespace(percentiles=dict)))
    tick = {"period_ms": 20.0, "late_p99_ms": 1.5}
    outcome = run_outcome(policy, rig.load, results, {"tick": tick})
    assert "kept 49.50 of 50 Hz, worst tick 22.0 ms of 20" in outcome.note
    assert f"load {rig.load.share:.0%}, headroom {rig.load.headroom:.0%};" in outcome.note
    assert abs(rig.load.share + rig.load.headroom - 0.7) < 1e-12
    told = json_from_data({"verb": "run", "data": outcome.data})
    data = json.loads(told)["data"]
    assert [one["kept_hz"] for one in data["episodes"]] == [49.75, 49.5]
    assert data["load"]["headroom"] == rig.load.headroom
    (first,) = data["episodes"][0]["misses"]
    assert (first["what"], first["step"]) == ("bridged", 0)
    html = summary_html(report_from_json(told))
    assert "49.75" in html
    assert "Deadlines that were missed" in html


def test_a_robot_that_does_not_close_fails_a_run_whose_episodes_are_told():
    rig = bench(num_steps=40)
    rig.run()
    result = result_of(rig.episode, Verdict(success=None), 4.0, 0.0)
    policy: Any = Namespace(session=Namespace(timings=Namespace(percentiles=dict)))
    assert run_outcome(policy, rig.load, [result], {}).ok
    outcome = run_outcome(policy, rig.load, [result], {"not_closed": "the bus hangs"})
    assert not outcome.ok
    assert "; afterwards: the bus hangs" in outcome.note
    assert len(outcome.rows) == 1


def test_what_a_robot_says_as_it_closes_loses_no_episode(monkeypatch):
    def refuse():
        raise DeviceError("the bus hangs")

    status = Namespace(**dict.fromkeys(("late_p50_ms", "late_p99_ms", "late_max_ms"), 0.1))
    status.num_skipped, status.counts = 0, {}
    link = Namespace(state=Namespace(num_torn=0, num_given_up=0))
    arm = Namespace(status=lambda: status, link=link)
    robot = Namespace(cameras=(), signal=None, arm=arm, close=refuse)
    run = Namespace(
        episodes=lambda *_, **__: ["done"], close=lambda: None, stopped_by=0,
        timekeeping=Namespace(report=dict),
    )  # fmt: skip
    monkeypatch.setattr(live_cli, "_live_robot", lambda *_: robot)
    monkeypatch.setattr(camera_rates, "running_rates", lambda *_: {"head": 20.0})
    monkeypatch.setattr(live_run, "LiveRun", lambda *_, **__: run)
    words: Any = Namespace(camera_hz=20.0, instruction=None)
    nothing: Any = None
    results, timing, _ = live_cli._real(
        words, nothing, nothing, nothing, [], [0], [], lambda _: None
    )
    assert len(results) == 1
    assert timing["not_closed"] == "the bus hangs"


def test_simulated_time_keeps_no_rate():
    rig = bench(num_steps=40)
    rig.run()
    result = result_of(rig.episode, Verdict(success=None), 4.0, 0.0)
    policy: Any = Namespace(session=Namespace(timings=Namespace(percentiles=dict)))
    outcome = run_outcome(policy, rig.load, [result], {})
    assert "kept" not in outcome.note
    assert outcome.data["episodes"][0]["kept_hz"] is None
