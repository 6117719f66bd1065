"""The page of a run: from what the verb writes, whole, and true to its numbers."""

import json
import re

import msgspec
import pytest
from tests.robot.test_page import Reader

from memorywam_robot.summary import (
    report_from_data,
    report_from_json,
    summary_html,
    summary_page,
)
from memorywam_robot.summary_sections import success_interval
from memorywam_runtime.cli import main
from memorywam_runtime.errors import InputError

EPISODE = {
    "seed": 3,
    "instruction": "press <b>",
    "success": True,
    "remark": "a < b",
    "aborted": "",
    "num_steps": 120,
    "num_frames": 8,
    "seconds": 12.5,
    "executed": [[0.0]],
    "remember_ms": [30.0, 31.0, 90.0],
    "act_ms": [300.0, 310.0, 320.0],
    "waited_ms": [0.1, 29.0, 3.0],
    "chunks": 7,
    "chunks_warned": 1,
    "chunks_dropped": 2,
    "chunks_replaced": 6,
    "bridged": 5,
    "holds": 1,
    "held_ms": 431.0,
    "limited": 11,
    "memory_quality": 0.957,
    "slots_filled": 4,
    "slots_missing": 6,
    "seams": [
        {"step": 16, "num_consumed": 4, "position": 0.0125, "velocity": 0.5},
        {"step": 32, "num_consumed": 4, "position": 0.6125, "velocity": 0.25},
    ],
    "kept_hz": 49.487,
    "worst_tick_ms": 43.21,
    "delayed_most": 7,
    "misses": [
        {"what": "bridged", "step": 0, "since_ms": 0.0, "num_steps": 9},
        {"what": "late chunk", "step": 37, "since_ms": 2260.0, "num_steps": 3},
        {"what": "bridged", "step": 48, "since_ms": 2880.0, "num_steps": 1},
        {"what": "skipped", "step": 60, "since_ms": 3600.0, "num_steps": 1},
    ],
    "misses_not_kept": 4,
    "reasons": ["hold: camera head is late", "stop: <starved>"],
}
LIVE = {
    "bundle": "b",
    "robot": "sim:recall",
    "backend": "ort",
    "loop": "async",
    "load": {"remember_ms": 36.0, "act_ms": 310.0, "step_ms": 60.0, "num_delayed": 6,
             "num_executed": 16, "num_bridged": 1, "share": 0.36, "headroom": 0.34},
    "timing": {
        "tick": {"period_ms": 20.0, "num_ticks": 900, "num_skipped": 2, "late_p50_ms": 0.06,
                 "late_p99_ms": 2.5, "late_max_ms": 9.0},
        "supervisor": {"period_ms": 10.0, "late_p50_ms": 0.05, "late_p99_ms": 0.5,
                       "late_max_ms": 1.0, "num_skipped": 0, "counts": {"commands": 900}},
        "cameras": {"head": {"frames": 375, "dropped": 3, "restarts": 1, "gaps": 2, "black": 0},
                    "wrist": {"frames": 376, "dropped": 0, "restarts": 0, "gaps": 0, "black": 0}},
    },
    "stages_ms": {"chunk": {"count": 14.0, "p50": 300.0, "p95": 315.0, "p99": 320.0}},
    "episodes": [EPISODE, EPISODE | {"seed": 4, "success": False, "aborted": "starved"}],
}  # fmt: skip


def _read(html):
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def _text(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_a_live_run_has_every_section_and_every_number():
    html = summary_html(report_from_data(LIVE))
    reader = _read(html)
    text = _text(html)
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings == [
        "Episodes", "How late ticks came", "Where chunks meet", "Time by frame",
        "Stages of the device, ms", "Memory", "Chunks", "Deadlines that were missed", "Cameras",
        "Why it held, warned or stopped",
    ]  # fmt: skip
    assert "1 of 2 succeeded: 9% to 91% (95 in 100); 1 aborted" in text
    assert 'class="verdict bad"' in html
    for told in (
        "loop 0.06 ms (0.3%) 2.50 ms (12.5%) 9.00 ms (45.0%) 2 NO",  # 12.5 % is above 10
        "arms 0.05 ms (0.5%) 0.50 ms (5.0%) 1.00 ms (10.0%) 0 yes",
        "3 8 0.957 4 6 0 1 431 0.0",
        "3 7 1 2 0 6 0 5 0 7",
        "3 49.49 43.2 4 49.49 43.2",
        "3 0 0.00 bridged 9 3 37 2.26 late chunk 3 3 60 3.60 skipped 1 4 0 0.00 bridged 9",
        "8 later ones were counted only. 2 pauses of at most 1 steps were planned.",
        "Remember 36 ms and act 310 ms: 6 of 16 steps of 60 ms; load 36%, headroom 34%.",
        "4 seams; position: median 0.312, most 0.613 at step 32.",
        "remember 31.0 90.0 90.0 90.0",
        "waited 3.0 29.0 29.0 29.0",
        "chunk 14 300.00 315.00 320.00",
        "camera frames dropped restarts gaps head 375 3 1 2 wrist 376 0 0 0",
        "hold: camera head is late 3 stop: &lt;starved&gt; 3",
        "yes 8 120 12.5 11 a &lt; b",
        "no 8 120 12.5 11 starved",
    ):
        assert told in text, told
    assert not reader.links


@pytest.mark.parametrize(
    ("successes", "aborted", "is_bad"),
    [([True, False], "", False), ([False, False], "", True), ([True, True], "x", True),
     ([None, None], "", False)],
)  # fmt: skip
def test_the_verdict_is_red_if_nothing_worked_or_anything_was_aborted(successes, aborted, is_bad):
    episodes = [EPISODE | {"success": one, "aborted": aborted} for one in successes]
    html = summary_html(report_from_data(LIVE | {"episodes": episodes}))
    assert ('class="verdict bad"' in html) == is_bad


def test_plots_have_a_point_for_every_seam_and_frame():
    html = summary_html(report_from_data(LIVE))
    points = [len(found.split()) for found in re.findall(r'<polyline[^>]* points="([^"]*)"', html)]
    assert points == [4, 4, 6, 6, 6]


def test_a_long_run_keeps_its_peaks():
    spans = [10.0] * 5000
    spans[3333] = 777.0
    html = summary_html(report_from_data(LIVE | {"episodes": [EPISODE | {"act_ms": spans}]}))
    (line,) = re.findall(r'points="([^"]*)"><title>act</title>', html)
    heights = [float(point.split(",")[1]) for point in line.split()]
    assert len(heights) <= 400
    assert sum(height < min(heights) + 1 for height in heights) == 1
    assert "777.0" in html


@pytest.mark.parametrize(
    ("good", "count", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (5, 10, 0.237, 0.763),
     (81, 263, 0.255, 0.366)],
)  # fmt: skip
def test_intervals_of_wilson(good, count, low, high):
    """The last is Newcombe's example, 1998, method 3."""
    assert success_interval(good, count) == pytest.approx((low, high), abs=6e-4)


def test_numbers_that_are_none_are_shown_all_the_same():
    episode = EPISODE | {"remember_ms": [float("nan"), 1.0]}
    assert report_from_data(LIVE | {"episodes": [episode]}).episodes[0].remember_ms[1] == 1.0


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"verb": "bench", "data": {}}', '{"verb": "run", "data": {}}']
)
def test_what_is_no_run_is_refused(text):
    with pytest.raises(InputError):
        report_from_json(text)


def test_what_the_verb_writes_becomes_a_page(tiny_bundle, tmp_path, capsys):
    """The real verb, one thing at a time: sections that nobody has numbers for are left out."""
    file, page = tmp_path / "run.json", tmp_path / "run.html"
    words = ["run", str(tiny_bundle), "--robot", "sim:recall", "--instruction", "random"]
    assert main([*words, "--episodes", "2", "--threads", "1", "--json", str(file)]) == 0
    report = report_from_json(file.read_bytes())
    summary_page(report, page)
    html = page.read_text()
    _read(html)
    data = json.loads(file.read_text())["data"]
    assert len(report.episodes) == 2
    assert report.episodes[1].num_frames == data["episodes"][1]["num_frames"] > 0
    assert len(report.episodes[0].act_ms) == len(data["episodes"][0]["act_ms"])
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Episodes", "Time by frame", "Stages of the device, ms",
    ]  # fmt: skip
    assert msgspec.to_builtins(report)["robot"] == "sim:recall"


def test_a_shadow_has_a_card_and_says_where_nobody_moved_the_arms():
    joint = {"name": "waist", "unit": "rad", "rms": 0.06884, "worst": 0.3971, "worst_step": 164}
    shadow = {"num_steps": 9, "is_still": False, "joints": [joint]}
    moved, still = EPISODE | {"shadow": shadow}, EPISODE | {"shadow": shadow | {"is_still": True}}
    page = summary_html(report_from_data({"episodes": [moved, still | {"seed": 8}]}))
    assert all(text in page for text in ("In the shadow", "0.0688", "0.3971", ">164<"))
    assert "STILL in the episodes of seed 8." in page
    assert "In the shadow" not in summary_html(report_from_data({"episodes": [EPISODE]}))
