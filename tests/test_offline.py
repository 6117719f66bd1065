"""What runs on the robot asks for no address: nothing is fetched, nobody is told."""

import subprocess
import sys
from pathlib import Path

import pytest

# Before anything of ours is imported. What a library does past Python, this does not see.
_GUARD = """
import sys

def refuse(event, args):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"):
        raise PermissionError(f"{event} {args[1:]}")

sys.addaudithook(refuse)
"""
_RUN = """
import numpy as np
from memorywam_runtime import Observation, Policy, open_bundle

policy = Policy(open_bundle(sys.argv[1], num_threads=1))
policy.reset("random")
images = {name: np.full((48, 64, 3), 7, np.uint8) for name in policy.contract.observations.cameras}
for _ in range(2):
    steps = policy.expected_steps()
    policy.remember([Observation(images=images, state=np.zeros(14), step=s) for s in steps])
assert np.isfinite(policy.act(np.zeros(14))).all()
"""
_ASK = """
import socket
socket.create_connection(("127.0.0.1", 9), timeout=1)
"""


def _told(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _GUARD + code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_policy_runs_without_a_network(tiny_bundle: Path) -> None:
    done = _told(_RUN, str(tiny_bundle))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", ["inspect", "doctor", "bench"])
def test_a_verb_runs_without_a_network(verb: str, tiny_bundle: Path) -> None:
    options = ["--frames", "1", "--repeat", "1"] if verb == "bench" else []
    program = f"from memorywam_runtime.cli import main\nsys.exit(main({[verb]!r} + sys.argv[1:]))"
    done = _told(program, str(tiny_bundle), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PermissionError" not in done.stdout + done.stderr


def test_whoever_asks_is_caught() -> None:
    done = _told(_ASK)
    assert done.returncode != 0
    assert "PermissionError: socket" in done.stderr
