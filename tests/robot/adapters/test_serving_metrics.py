"""What who watches a server is told: in a form that Prometheus reads, without waiting."""

import http.client
import re
import threading

import numpy as np
import pytest
from tests.fakes.policy_server import connected, joints, pictures, served, talk

from memorywam_robot.adapters.dialects import PolicyService
from memorywam_robot.adapters.serving_metrics import metrics_text

pytest.importorskip("websockets", reason="needs the extra memorywam[serve]")
TYPE = re.compile(r"# TYPE (memorywam_[a-z_]+) (counter|gauge)")
SAMPLE = re.compile(r'(memorywam_[a-z_]+)(\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})? (\S+)')


def read(text):
    """Return every sample by name and labels, as the form's grammar has them."""
    found, known = {}, None
    assert text.endswith("\n")
    for line in text.splitlines():
        if kind := TYPE.fullmatch(line):
            known = kind[1]
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample is not None, line
        assert sample[1] == known, "a sample without its type before it"
        assert sample[1] + (sample[2] or "") not in found
        found[sample[1] + (sample[2] or "")] = float(sample[3])
    return found


def got(running, path="/metrics", token=""):
    link = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
    link.request("GET", path, headers={"Authorization": f"Api-Key {token}"} if token else {})
    response = link.getresponse()
    body = response.read().decode()
    link.close()
    return response.status, response.getheader("Content-Type"), body


def observed(contract, step):
    return {"images": pictures(contract, step), "state": joints(contract, step), "prompt": "random"}


def test_metrics_are_told_in_prometheus_text(served_policy):
    contract, timings = served_policy.contract, served_policy.session.timings
    service = PolicyService(served_policy, max_frames=64, stages=timings.percentiles)
    timings.restart()
    with served(service) as running:
        with connected(running) as link:
            for step in (0, 4):
                talk(link, observed(contract, step))
            assert "expected" in talk(link, {"nonsense": 1})
        status, kind, text = got(running)
    found = read(text)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert found["memorywam_clients_total"] == 1
    assert found["memorywam_requests_total"] == 3
    assert found["memorywam_refused_requests_total"] == 1
    assert found["memorywam_frames_seen_total"] == 2
    assert found["memorywam_memory_frames"] == 1
    assert found["memorywam_memory_max_frames"] == 64
    assert found['memorywam_stage_calls_total{stage="chunk"}'] == 1  # for both observations
    told = [found[f'memorywam_stage_milliseconds{{stage="chunk",quantile="{q}"}}']
            for q in ("0.5", "0.95", "0.99")]  # fmt: skip
    assert 0 < told[0] <= told[1] <= told[2]


def test_it_needs_the_token_where_there_is_one(served_policy):
    with served(PolicyService(served_policy), token="a" * 20) as running:
        assert got(running)[0] == 401
        assert got(running, token="b" * 20)[0] == 401
        assert got(running, token="a" * 20)[0] == 200
        assert got(running, "/healthz")[0] == 200


def test_it_waits_for_no_chunk(scripted):
    """Asked while the policy is at work, and while a client has the place."""
    policy = scripted(lambda frame, state: np.zeros((16, 14)))
    gate, begun = threading.Event(), threading.Event()

    def slowly(state):
        begun.set()
        assert gate.wait(10)
        return np.zeros((16, 14))

    policy.act = slowly
    names = policy.contract.observations.cameras
    images = {name: np.zeros((4, 4, 3), np.uint8) for name in names}
    message = {"images": images, "state": np.zeros(14), "prompt": "job", "step": 0}
    with served(PolicyService(policy)) as running, connected(running) as link:
        asking = threading.Thread(target=talk, args=(link, message))
        asking.start()
        try:
            assert begun.wait(10)
            assert read(got(running)[2])["memorywam_requests_total"] == 1
        finally:
            gate.set()
            asking.join(10)
        assert running.server.counts.refused_clients == 0


def test_what_is_not_known_is_left_out():
    found = read(metrics_text({"requests": 3}, {"memory_frames": 2, "memory_max_frames": None}, {}))
    assert found == {"memorywam_requests_total": 3, "memorywam_memory_frames": 2}
