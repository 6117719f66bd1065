"""The checkpoint that ships remembers: success over unseen seeds, and none without memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from memorywam_robot.demo import SHIPPED_CHECKPOINT

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1800)]

NUM_EPISODES = 50


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("shipped") / "bundle"
    program("export", str(SHIPPED_CHECKPOINT), "--out", str(path))
    return path


def program(*words):
    command = [sys.executable, "-m", "memorywam_runtime.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def success(bundle: Path, task: str, *options: str) -> float:
    words = ("run", str(bundle), "--robot", f"sim:{task}", "--episodes", str(NUM_EPISODES))
    text = program(*words, "--threads", "1", *options, "--json", "-")
    return float(json.loads(text)["data"]["success"])


@pytest.mark.parametrize("task", ["recall", "glimpse"])
def test_memory_solves_what_a_window_cannot(bundle, task):
    assert success(bundle, task) >= 0.9
    assert success(bundle, task, "--hide", "anchors,gists") <= 0.5


def test_counting_is_learned(bundle):
    assert success(bundle, "count") >= 0.8
