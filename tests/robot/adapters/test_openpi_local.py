"""In process, the messages of openpi's clients have the answers that they have over the wire."""

import numpy as np
import pytest
from tests.fakes.policy_server import joints, pictures, served

from memorywam_robot.adapters.dialects import PolicyService
from memorywam_robot.adapters.openpi_local import LocalPolicy
from memorywam_runtime.errors import InputError

websocket_client = pytest.importorskip("openpi_client.websocket_client_policy")
broker = pytest.importorskip("openpi_client.action_chunk_broker")
pytestmark = pytest.mark.filterwarnings(
    # What this client does has been deprecated since websockets 17.1.
    r"ignore:connect\(\) must be used:DeprecationWarning"
)

NUM_FRAMES = 5


def message(contract, step):
    return {"images": pictures(contract, step), "state": joints(contract, step), "prompt": "random"}


def driven(policy, contract):
    """Return what a robot's program does with either."""
    return [
        policy.infer(message(contract, step))["actions"]
        for frame in range(NUM_FRAMES)
        for step in ((0,) if frame == 0 else range(16 * frame - 12, 16 * frame + 1, 4))
    ]


def test_answers_are_those_of_the_server(served_policy, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    contract = served_policy.contract
    with served(PolicyService(served_policy)) as running:
        far = websocket_client.WebsocketClientPolicy("127.0.0.1", running.port)
        wanted = driven(far, contract)
        about = far.get_server_metadata()
        far._ws.close()
    near = LocalPolicy(PolicyService(served_policy))
    found = driven(near, contract)
    assert [one.tobytes() for one in found] == [one.tobytes() for one in wanted]
    assert near.get_server_metadata() == about


def test_a_reset_reaches_memory(served_policy):
    contract = served_policy.contract
    policy = LocalPolicy(PolicyService(served_policy))
    driven(policy, contract)
    policy.reset()
    first = policy.infer(message(contract, 0))
    assert first["memory"]["memory_version"] == 1
    with pytest.raises(InputError):
        policy.infer({"images": {}, "state": np.zeros(14), "prompt": "random"})


def test_its_broker_takes_it(served_policy):
    contract = served_policy.contract
    near = broker.ActionChunkBroker(LocalPolicy(PolicyService(served_policy)), action_horizon=4)
    actions = [near.infer(message(contract, step))["actions"] for step in range(8)]
    near.reset()
    again = [near.infer(message(contract, step))["actions"] for step in range(8)]
    assert np.shape(actions) == np.shape(again) == (8, 14)
    assert np.isfinite(actions).all()
