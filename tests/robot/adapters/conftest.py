"""One tiny policy for all that is served, and the same again for comparison."""

import pytest

from memorywam_robot.adapters.dialects import PolicyService
from memorywam_robot.runs import policy_from_bundle
from memorywam_runtime.opening import Opening

NUM_CHUNKS = 7
"""Past the first eviction: two anchors, a window of three."""


@pytest.fixture(scope="session")
def served_policy(tiny_bundle):
    """The policy that a server owns; each test begins episodes of its own."""
    pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
    return policy_from_bundle(tiny_bundle, Opening(num_threads=1))


@pytest.fixture(scope="session")
def direct_policy(tiny_bundle):
    """The same bundle, asked without a wire."""
    pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
    return policy_from_bundle(tiny_bundle, Opening(num_threads=1))


@pytest.fixture(scope="session")
def chunks(direct_policy):
    """What a client of the random episode must be given, chunk by chunk."""
    from tests.fakes.policy_server import in_process

    return in_process(direct_policy, "random", NUM_CHUNKS)


@pytest.fixture
def talked(served_policy):
    """Start a conversation; return what asks in it."""

    def start(options=None, service=None):
        service = service or PolicyService(served_policy, options, max_frames=64)
        conversation = service.conversation()

        def ask(message, arrived_ns=0):
            return conversation.answer(message, arrived_ns)

        return ask

    return start
