"""A chunk that gives way to another before it is made is counted, and told everywhere."""

import json
import re

import numpy as np
from tests.fakes.live import BenchPolicy
from tests.fakes.live_bench import AMPLE, bench, ramp

from memorywam_robot.live.tasks import Act, Begin, ChunkReplaced, Instruct, Remember
from memorywam_robot.live.virtual_worker import Latency
from memorywam_robot.live.worker import Worker
from memorywam_robot.summary import report_from_json, summary_html
from memorywam_runtime.report import json_from_data


def replaced_by(*tasks):
    """Frames of the chunks that these tasks replace, one step into that of frame 0."""
    worker = Worker(BenchPolicy())
    first = (
        Begin(epoch=1, instruction="go", seed=0, max_steps=9),
        Remember(epoch=1, frame=0, observations=()),
        infer(0),
    )
    for task in first:
        worker.put(task)
    while worker.turn() != "step":
        pass
    for task in tasks:
        worker.put(task)
    while worker.turn() is not None:
        pass
    return [event.task.frame for event in worker.events() if isinstance(event, ChunkReplaced)]


def infer(frame):
    return Act(epoch=1, frame=frame, requested_at=0, state=np.zeros(14))


def test_what_replaces_a_chunk_and_what_does_not():
    again = Begin(epoch=2, instruction="go", seed=0, max_steps=9)
    other = Instruct(epoch=1, instruction="another")
    memory = Remember(epoch=1, frame=1, observations=())
    assert replaced_by() == []
    assert replaced_by(memory) == [], "memory goes on beside it"
    assert replaced_by(infer(1)) == [0]
    assert replaced_by(infer(1), infer(2)) == [0, 1], "each that was waiting"
    assert replaced_by(other) == [0]
    assert replaced_by(other, infer(0)) == [0], "once"
    assert replaced_by(again) == [], "that was another episode's"


def test_a_worker_that_is_too_slow_replaces_chunk_after_chunk():
    rig = bench(latency=Latency(remember_ms=10.0, step_ms=600.0), rules=AMPLE, num_steps=80)
    rig.run()
    counts = rig.episode.counts
    # 2.4 s each, and one is asked for every 1.6 s: only the last, which nothing follows, is made.
    assert rig.policy is not None
    assert len(rig.asked) == 5
    assert [line for line in rig.policy.log if line.startswith("given")] == [
        f"given up {frame}" for frame in range(4)
    ]
    assert counts.chunks_replaced == 4
    assert counts.report()["chunks_replaced"] == 4


def test_none_is_replaced_where_the_worker_keeps_up():
    rig = bench(num_steps=80)
    rig.run()
    assert rig.episode.counts.chunks_replaced == 0
    assert len(rig.episode.counts.act_ms) == len(rig.asked) == 5


def test_one_that_was_replaced_leaves_the_one_under_way_alone():
    """Whether it was made a moment before or not: the other is still to come."""
    rig = bench(BenchPolicy(ramp), num_steps=120)
    rig.until(lambda: len(rig.asked) == 2)
    chunks = rig.episode._chunks
    pending = chunks._pending
    assert pending is not None
    assert pending is rig.asked[1]
    chunks._settle(rig.asked[0])
    assert chunks._pending is pending
    chunks._settle(pending)
    assert chunks._pending is None


def test_the_table_the_json_and_the_page_tell_of_it():
    from argparse import Namespace

    from memorywam_robot.live.live_result import result_of
    from memorywam_robot.live_report import run_outcome
    from memorywam_robot.robot import Verdict

    rig = bench(latency=Latency(remember_ms=10.0, step_ms=600.0), rules=AMPLE, num_steps=80)
    rig.run()
    result = result_of(rig.episode, Verdict(success=None), 8.0, 0.0)
    session = Namespace(timings=Namespace(percentiles=dict))
    outcome = run_outcome(Namespace(session=session), rig.load, [result], {})  # type: ignore[arg-type]
    (row,) = outcome.rows
    assert dict(zip(outcome.headers, row, strict=True))["replaced"] == 4
    told = json_from_data({"verb": "run", "data": outcome.data})
    (episode,) = json.loads(told)["data"]["episodes"]
    assert episode["chunks_replaced"] == 4
    report = report_from_json(told)
    assert report.episodes[0].chunks_replaced == 4
    html = summary_html(report)
    section = html[html.index("<h2>Chunks</h2>") :]
    headers = re.findall(r"<th[^>]*>(.*?)</th>", section)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", section)
    assert cells[headers.index("replaced")] == "4"
