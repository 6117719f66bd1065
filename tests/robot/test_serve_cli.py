"""The verb serve: a process that serves until a signal, and says what it did."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from memorywam_robot.serve_cli import Serve
from memorywam_runtime import cli
from memorywam_runtime.errors import InputError

pytest.importorskip("websockets", reason="needs the extra memorywam[serve]")
pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")

_PROGRAM = """
import sys
from memorywam_robot.serve_cli import Serve
from memorywam_runtime import cli
from memorywam_runtime.stopping import stopping_unwinds
with stopping_unwinds():
    status = cli._run_verb("serve", Serve(), sys.argv[1:])
sys.exit(status)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_process(tiny_bundle, tmp_path, sent):
    from tests.fakes.policy_server import pictures

    result = tmp_path / "result.json"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(tiny_bundle), "--port", "0",
         "--threads", "1", "--steps", "2", "--json", str(result)],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = ""
        while "serving on" not in line:
            line = process.stderr.readline()
            assert line, process.wait()
        found = re.search(r"ws://127.0.0.1:(\d+) to clients on this machine", line)
        assert found, line
        port = int(found[1])
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        link.request("GET", "/healthz")
        assert link.getresponse().status == 200
        link.close()
        ask_once(port, pictures)
        process.send_signal(sent)
        told, said = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "stopped as asked" in told
    data = json.loads(result.read_bytes())["data"]
    assert (data["clients"], data["requests"], data["episodes"], data["frames_seen"]) == (
        1,
        1,
        1,
        1,
    )


def ask_once(port, pictures):
    import numpy as np
    from websockets.sync.client import connect

    from memorywam_export.checkpoints.presets import contract_from_preset
    from memorywam_robot.adapters.wire import data_from_wire, wire_from_data

    shown = {"images": pictures(contract_from_preset("tiny"), 0), "state": np.zeros(14)}
    with connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None) as link:
        metadata = data_from_wire(link.recv(decode=False))
        assert metadata["instructions"] == ["random"]
        assert len(metadata["contract_hash"]) == 64
        assert metadata["num_denoising_steps"] == 2
        link.send(wire_from_data(shown | {"prompt": "random"}))
        assert data_from_wire(link.recv(decode=False))["actions"].shape == (4, 14)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--host", "0.0.0.0"], "without --token-file"),
        (["--token-file", "missing"], "--token-file missing: "),
        (["--protocol", "smoke"], "unknown protocol 'smoke'"),
        (["--max-message", "0"], "found --max-message 0"),
        (["--camera", "head"], "expected WIRE=NAME"),
        (["--camera", "top=roof"], "found --camera top=roof"),
        (["--infer-every", "16"], "such clients drop 3 of 4 observations"),
        (["--on-prompt-change", "guess"], "expected one of refuse, reset, keep"),
        (["--steps", "0"], "found --steps 0; expected 1 to 10000"),
        (["--port", "99999"], "found --port 99999"),
    ],
)
def test_what_is_refused_before_anything_listens(tiny_bundle, words, expected):
    with pytest.raises(InputError, match=re.escape(expected)):
        cli._run_verb("serve", Serve(), [str(tiny_bundle), "--threads", "1", *words])
