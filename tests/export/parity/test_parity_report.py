"""A rung is held to the noise of its type, to what another seed changes, and to its tolerance."""

import numpy as np
import pytest

from memorywam_export.parity.parity_report import noise_of, rung_checks
from memorywam_export.parity.tolerances import TOLERANCES
from memorywam_export.parity.trace_report import ByFrame, Difference, RungResult

NOISE = {"latents": 1e-3, "memory": 2e-3, "actions": 4e-3}
"""Relative root mean square of the reference itself, in that type."""


def off(rel_rms=0.0, max_abs=0.0):
    return Difference(max_abs=max_abs, rel_rms=rel_rms, worst="here")


def rung(*, latents=0.0, memory=0.0, actions=0.0, max_abs=0.0, noise_effect=None, repeat=None):
    nothing = np.zeros(3)
    return RungResult(
        name="onnx",
        precision="fp16",
        latents=off(latents),
        actions=off(actions, max_abs),
        per_joint=[],
        by_frame=ByFrame(latents=nothing, memory={}, actions=nothing),
        memory={"memory.00.k": off(), "memory.00.v": off(memory)},
        graphs={"action_step": {"x_next": off()}},
        noise_effect=noise_effect,
        repeat_effect=repeat,
    )


def failed(result, noise=None):
    return [check.what for check in rung_checks(result, noise) if not check.ok]


@pytest.mark.parametrize("part", NOISE)
def test_three_times_the_noise_of_the_type_is_the_most(part):
    assert failed(rung(**{part: 3 * NOISE[part]}), NOISE) == []
    assert failed(rung(**{part: 3.01 * NOISE[part]}), NOISE) == [f"{part} within the noise of fp16"]
    assert failed(rung(**{part: 1.0})) == []  # the reference itself is not held to its own noise


def test_the_noise_is_that_of_the_worst_tensor_of_memory():
    assert noise_of(rung(latents=1e-3, memory=2e-3, actions=4e-3)) == NOISE


def test_half_of_what_another_seed_changes_is_the_most():
    """Beyond, the exported policy differs from the trained one more than by other noise."""
    limit = TOLERANCES["fp16"].max_abs
    assert failed(rung(max_abs=0.4 * limit, noise_effect=0.8 * limit)) == []
    found = failed(rung(max_abs=0.41 * limit, noise_effect=0.8 * limit))
    assert found == ["other noise gives other actions"]


def test_noise_that_changes_nothing_is_a_fault():
    assert failed(rung(max_abs=1e-6, noise_effect=0.0)) == ["other noise gives other actions"]


def test_the_same_call_twice_may_differ_by_a_tenth_of_the_tolerance():
    limit = TOLERANCES["fp16"].max_abs
    assert failed(rung(repeat=limit / 10)) == []
    assert failed(rung(repeat=limit / 9)) == ["the same call twice"]


def test_each_precision_has_its_tolerance():
    limits = [TOLERANCES[name].max_abs for name in ("fp64", "fp32", "fp16", "bf16")]
    assert limits == sorted(set(limits))
    assert all(one.reason for one in TOLERANCES.values())
    assert failed(rung(max_abs=TOLERANCES["fp16"].max_abs)) == []
    assert failed(rung(max_abs=1.01 * TOLERANCES["fp16"].max_abs)) == ["actions, free-running"]
