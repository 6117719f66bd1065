"""Sessions and policies on every rung, ready to be driven."""

import pytest

from memorywam_runtime.bundle import read_prompt
from memorywam_runtime.policy import Policy


@pytest.fixture(scope="module")
def text(a_rung):
    return read_prompt(a_rung.root, a_rung.manifest, "random")


@pytest.fixture
def driver(a_rung, text):
    # Imported here: it loads torch, and most tests need none.
    from tests.fakes.driver import Driver

    return Driver(a_rung.session(), text)


@pytest.fixture
def life(a_rung, text):
    from tests.fakes.denoising import Life

    return Life(a_rung.session(64), text)


@pytest.fixture
def policy(a_rung):
    policy = Policy(a_rung.session(3, 8, 64))
    policy.reset("random")
    return policy
