"""The digest tells memories apart, and nothing else."""

import numpy as np
import pytest
from tests.fakes.bundles import observations_at

from memorywam_runtime.digest import memory_digest
from memorywam_runtime.policy import Policy


def driven(rung, num_frames, *, seed=0, acts=True, changed=None):
    """Return a policy that has remembered some frames; one pixel of a step may be another."""
    policy = Policy(rung.session(3, 8, 64))
    policy.reset("random", seed=seed)
    for _ in range(num_frames):
        group = observations_at(policy.contract, policy.expected_steps())
        for one in group:
            if one.step == changed:
                one.images[policy.contract.observations.cameras[0]][0, 0, 0] ^= 0x80
        policy.remember(group)
        if acts:
            policy.act(np.zeros(14))
    return policy


@pytest.fixture(scope="module")
def digest(a_rung):
    policy = driven(a_rung, 5)
    return memory_digest(policy.session)


def test_the_same_again(a_rung, digest):
    assert memory_digest(driven(a_rung, 5).session) == digest
    assert len(digest) == 64
    assert set(digest) <= set("0123456789abcdef")


def test_a_chunk_is_no_memory(a_rung, digest):
    """Its noise and its keys do not count: another seed, or no chunk at all but the last."""
    assert memory_digest(driven(a_rung, 5, seed=3).session) == digest
    policy = driven(a_rung, 5, acts=False)
    policy.act(np.zeros(14))
    assert memory_digest(policy.session) == digest


@pytest.mark.parametrize("step", [0, 4, 40, 64])
def test_a_pixel_counts_even_after_its_frame_has_gone(a_rung, digest, step):
    assert memory_digest(driven(a_rung, 5, changed=step).session) != digest


def test_a_frame_more_or_less_counts(a_rung, digest):
    found = {memory_digest(driven(a_rung, count).session) for count in (0, 1, 4, 6)}
    assert len(found | {digest}) == 5


def test_the_joint_state_counts(a_rung, digest):
    policy = driven(a_rung, 5)
    policy.act(np.full(14, 0.1))
    assert memory_digest(policy.session) != digest


def test_it_survives_a_snapshot(a_rung, digest):
    other = Policy(a_rung.session(3, 8, 64))
    other.restore(driven(a_rung, 5).snapshot())
    assert memory_digest(other.session) == digest


def test_an_image_seen_is_not_remembered_yet(a_rung, digest):
    policy = driven(a_rung, 5)
    policy.see(observations_at(policy.contract, policy.expected_steps()[:1])[0])
    assert memory_digest(policy.session) == digest


def test_rows_that_nothing_reads_do_not_count(a_rung, digest):
    session = driven(a_rung, 5).session
    rows = session.memory.rows
    unused = rows.gist(session.memory.num_table_places(5))

    def put(first, count):
        array = session.state_arrays(session.buffers.bucket)["memory.00.k"][1]
        values = np.ascontiguousarray(session.backend.read(array))
        values[:, :, first : first + count] = 7
        session.backend.write(array, values)

    put(rows.chunk, rows.num_actions)
    put(unused, rows.num_gists)
    assert memory_digest(session) == digest
    put(unused - 1, 1)
    assert memory_digest(session) != digest
