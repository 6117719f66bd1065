"""What torch brings and what the simulator draws with share a process, in the order that works."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
pytest.importorskip("torch", reason="needs the extra memorywam[export]")

PROGRAM = """
import json, sys
from memorywam_runtime.cli import main

status = main(sys.argv[1:])
print(json.dumps([status, list(sys.modules)]))
"""


def test_the_backend_is_loaded_before_the_simulator_draws(tiny_bundle):
    """In a process of its own: the other order is a segmentation fault where torch has triton."""
    words = ["run", str(tiny_bundle), "--robot", "sim:recall", "--instruction", "random"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words, "--backend", "eager", "--dry-run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    assert modules.index("torch") < modules.index("mujoco")
