"""The soak's own verdicts on made samples, and a short soak of the real thing."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tests.robot.soak_verdict import judged, slope_per_hour

from memorywam_robot.demo import SHIPPED_CHECKPOINT
from memorywam_runtime.cli import main


def made(count=60, **figures):
    """Return samples of a quiet hour, with some figures made otherwise."""
    noise = np.random.default_rng(0).normal(size=count)
    minutes = np.arange(count, dtype=float)
    columns = {
        "minutes": minutes, "policy_mib": 1000 + 0.1 * noise, "late_p99_ms": 0.2 + 0.01 * noise,
        "fds": 17 + (minutes % 2), "threads": np.full(count, 18.0), "episodes": minutes,
        "aborted": np.zeros(count),
    }  # fmt: skip
    columns |= {name: np.asarray(values, float) for name, values in figures.items()}
    return [
        {name: float(column[index]) for name, column in columns.items()} for index in range(count)
    ]


def answers(samples, **left):
    return {one.what: one.answer for one in judged(samples, left)}


MINUTES = np.arange(60.0)


def test_a_quiet_hour_holds():
    assert set(answers(made()).values()) == {"holds"}


@pytest.mark.parametrize(
    ("what", "figures"),
    [
        ("policy_mib", {"policy_mib": 1000 + 0.7 * MINUTES}),
        ("late_p99_ms", {"late_p99_ms": 0.2 + 0.05 * MINUTES}),
        ("fds", {"fds": 17 + MINUTES // 5}),
        ("threads", {"threads": 18 + MINUTES // 30}),
        ("aborted episodes", {"aborted": np.maximum(0, MINUTES - 50)}),
        ("aborted episodes", {"episodes": 0 * MINUTES}),
    ],
)
def test_what_grows_fails(what, figures):
    found = answers(made(**figures))
    assert found.pop(what) == "FAILS"
    assert set(found.values()) == {"holds"}


def test_what_is_left_behind_fails():
    assert answers(made(), temp=["a file"])["left behind"] == "FAILS"


def test_too_short_a_soak_is_undecided():
    noise = np.random.default_rng(1).normal(size=10)
    assert answers(made(10, policy_mib=1000 + 20 * noise))["policy_mib"] == "undecided"
    assert answers(made(5))["policy_mib"] == "undecided"


def test_what_moves_a_tick_in_a_minute_is_no_growth():
    """Seen on a busy machine: 0.13 ms in a minute, 8 ms an hour."""
    seconds = np.arange(0, 1, 1 / 30)
    late = answers(made(30, minutes=seconds, late_p99_ms=0.4 + 0.13 * seconds))
    assert late["late_p99_ms"] == "undecided"
    assert answers(made(30, late_p99_ms=0.4 + 0.13 * np.arange(30.0)))["late_p99_ms"] == "FAILS"


def test_aborts_from_the_start_are_the_machines():
    assert answers(made(aborted=MINUTES // 6))["aborted episodes"] == "holds"


def test_a_burst_moves_no_slope():
    values = np.where((MINUTES > 40) & (MINUTES < 44), 50.0, 0.2)
    middle, low, high = slope_per_hour(MINUTES, values)
    assert (middle, low, high) == (0.0, 0.0, 0.0)


@pytest.mark.proof
@pytest.mark.alone
def test_a_minute_of_episodes(tmp_path):
    """The load is set: a minute shows what leaks at once, not how fast this machine is."""
    pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
    pytest.importorskip("pyrealsense2", reason="needs the extra memorywam[realsense]")
    pytest.importorskip("foxglove", reason="needs the extra memorywam[view]")
    bundle, out = tmp_path / "demo", tmp_path / "soak.json"
    assert main(["export", str(SHIPPED_CHECKPOINT), "--out", str(bundle)]) == 0
    words = [str(bundle), "--minutes", "1", "--every", "2", "--latency", "40", "80"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.robot.soak", *words, "--out", str(out)],
        capture_output=True, text=True, check=False, timeout=400,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MUJOCO_GL": "egl"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_bytes())
    assert found["left"] == {"children": [], "temp": [], "shm": [], "recordings_not_whole": []}
    last = found["samples"][-1]
    assert {"supervisor_mib", "viewer_mib", "policy_mib"} <= set(last)
    assert last["episodes"] >= 2
    page = out.with_suffix(".html").read_text()
    assert page.count("<svg") == 6
    assert "nothing grows" in page
