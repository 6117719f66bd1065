"""What `run --async` tells of its deadlines: in the note, for machines, and on the page."""

import json
from argparse import Namespace
from dataclasses import replace
from typing import Any

from tests.fakes.live_bench import bench

from memorywam_robot.live.live_result import result_of
from memorywam_robot.live_report import run_outcome
from memorywam_robot.robot import Verdict
from memorywam_robot.summary import report_from_json, summary_html
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


def test_simulated_time_keeps_no_rate():
    rig = bench(num_steps=40)
    rig.run()
    result = result_of(rig.episode, Verdict(success=None), 4.0, 0.0)
    policy: Any = Namespace(session=Namespace(timings=Namespace(percentiles=dict)))
    outcome = run_outcome(policy, rig.load, [result], {})
    assert "kept" not in outcome.note
    assert outcome.data["episodes"][0]["kept_hz"] is None
