"""Every planted fault is caught where it is; a fault that nobody planted is not seen."""

from dataclasses import replace

import pytest
import torch
from tests.fakes.episodes import contract_with, identity, random_model

from memorywam_export.eager.eager import eager_session
from memorywam_export.ladder.climb import Rung
from memorywam_export.ladder.fault_checks import fault_checks
from memorywam_export.ladder.faults import FAULTS, Fault, faults_of
from memorywam_export.parity.parity import random_script, reference_trace
from memorywam_runtime.session import Session

NUM_FRAMES = 9


@pytest.fixture(scope="module")
def ladder():
    """A sound rung in float64, what it is fed and what the reference makes of it."""
    return made(contract_with())


def made(contract):
    model = random_model(contract)
    script = random_script(contract, NUM_FRAMES, seed=0)
    rung = Rung(
        name="graph", precision="fp32", open=lambda: eager_session(model, identity(contract))
    )
    return rung, script, reference_trace(model, script), contract


def test_there_are_at_least_fifteen_and_each_is_caught_where_it_is(ladder):
    checks = fault_checks(*ladder)
    assert len(checks) == len({check.what for check in checks}) == len(FAULTS) >= 15
    assert {check.what: check.worst for check in checks if not check.ok} == {}
    named = {
        "planted: swapped camera",
        "planted: wrong mosaic order",
        "planted: dropped frame",
        "planted: frame at a shifted position",
        "planted: stale slot",
        "planted: another seed",
    }
    assert named <= {check.what for check in checks}


@pytest.mark.parametrize(
    "changes",
    [
        {"action_history": True},
        {"proprio_in_video_context": True, "visual_sees_own_gist": True},
        {"vae_history": "windowed", "action_position": "sequence"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_they_are_caught_under_other_conventions(changes):
    checks = fault_checks(*made(contract_with(**changes)))
    assert {check.what: check.worst for check in checks if not check.ok} == {}
    assert len(checks) >= 15


def test_a_model_of_single_frames_has_fewer():
    contract = contract_with("tiny-fastwam")
    names = {fault.name for fault in faults_of(contract)}
    assert "another seed" in names
    assert "stale slot" not in names
    checks = fault_checks(*made(contract))
    assert {check.what: check.worst for check in checks if not check.ok} == {}


def test_a_session_is_sound_again_afterwards(ladder):
    rung, script, truth, contract = ladder
    session = rung.open()
    shared = replace(rung, open=lambda: session)
    fault_checks(shared, script, truth, contract)
    assert [check for check in fault_checks(shared, script, truth, contract) if not check.ok] == []
    assert type(session).__dict__.keys() & vars(session).keys() == set()
    assert isinstance(session, Session)


def test_a_fault_that_does_nothing_is_not_caught(ladder, monkeypatch):
    """Or a check that always fails would pass for a sharp one."""
    harmless = Fault(name="nothing", says=r".*", script=lambda script, _: script)
    elsewhere = replace(FAULTS[0], says=r"actions, from frame 0")
    monkeypatch.setattr("memorywam_export.ladder.faults.FAULTS", (harmless, elsewhere))
    nothing, misplaced = fault_checks(*ladder)
    assert (nothing.ok, nothing.worst) == (False, "NOT CAUGHT")
    assert not misplaced.ok
    assert misplaced.worst.startswith("latents")


def test_an_episode_too_short_to_plant_in_plants_nothing(ladder):
    rung, script, truth, contract = ladder
    assert fault_checks(rung, script.first(5), truth, contract) == []


def test_a_coarse_type_hides_small_faults(ladder):
    """Which is why they are planted in float32."""
    rung, *rest = ladder
    checks = fault_checks(replace(rung, precision="bf16"), *rest)
    assert "planted: values rounded in one layer" in {c.what for c in checks if not c.ok}
    assert torch.finfo(torch.bfloat16).eps > 1e-3
