"""Chunk errors are told joint by joint, in the robot's units."""

import msgspec
import numpy as np
import pytest

from memorywam_calibration.judgement.chunk_error import errors_from_chunks
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.normalization import Affine

JOINT = 1


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    """Raw actions are ten times the normalized ones and 0.5 more."""
    found = read_manifest(tiny_bundle)
    size = found.contract.actions.action_dim
    action = Affine(scale=(0.1,) * size, offset=(-0.05,) * size, clamp=5.0)
    normalization = msgspec.structs.replace(found.normalization, action=action)
    return msgspec.structs.replace(found, normalization=normalization)


@pytest.fixture
def chunks(manifest):
    actions = manifest.contract.actions
    shape = (20, actions.horizon, actions.action_dim)
    return np.random.default_rng(0).standard_normal(shape)


def test_errors_are_in_the_joint_s_unit(manifest, chunks):
    found = chunks.copy()
    found[:, :, JOINT] += 0.02
    others = np.zeros_like(chunks[:3])
    others[..., JOINT] = 0.3
    joints = errors_from_chunks(chunks, found, others, manifest).joints
    off = joints[JOINT]
    for figure in (off.rms, off.p95, off.p99, off.max):
        assert figure == pytest.approx(0.2)
    assert off.spread == pytest.approx(3.0)
    assert (off.unit, off.name) == (
        manifest.contract.actions.units[JOINT],
        (manifest.contract.actions.names or [f"joint_{JOINT}"] * 2)[JOINT],
    )
    assert all(one.max == one.spread == 0 for one in joints if one.joint != JOINT)


def test_a_gripper_flips_where_one_is_open_and_one_is_closed(manifest, chunks):
    units = manifest.contract.actions.units
    gripper = units.index("fraction")
    wanted, found = chunks.copy(), chunks.copy()
    wanted[..., gripper], found[..., gripper] = -1e-3, -1e-3
    found[0, 0, gripper] = 1e-3
    joints = errors_from_chunks(wanted, found, chunks, manifest).joints
    assert joints[gripper].flips == pytest.approx(1 / wanted[..., 0].size)
    assert all(one.flips is None for one in joints if one.unit != "fraction")


def test_one_bad_chunk_is_in_the_tail_and_not_in_the_median(manifest, chunks):
    found = chunks.copy()
    found[:2] = -found[:2]
    errors = errors_from_chunks(chunks, found, chunks, manifest)
    assert errors.num_chunks == len(chunks)
    assert errors.cosine_median == pytest.approx(1)
    assert errors.cosine_p5 == pytest.approx(-1)
    assert errors.max == pytest.approx(2 * np.abs(chunks[:2]).max())
    assert errors.p95 == pytest.approx(np.percentile(np.abs(found - chunks), 95))
