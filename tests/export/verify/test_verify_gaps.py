"""What a verification did not look at is said, and nothing else."""

from dataclasses import replace

import pytest
from tests.fakes.bundles import TINY

from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.verify.verify_gaps import gaps_of
from memorywam_runtime.bundle import read_manifest

PLANTED = [{"what": "planted: swapped camera"}]


@pytest.fixture(scope="module")
def checkpoint():
    return checkpoint_from_argument(TINY)


def boundaries(*, reached):
    names = {"first eviction": 5, "gist bucket of 32 full": 32, "gist bucket of 64 full": 64}
    return {name: {"frame": frame, "reached": frame < reached} for name, frame in names.items()}


def test_a_whole_verification_has_no_gaps(tiny_bundle, checkpoint):
    data = {"frames": 40, "boundaries": boundaries(reached=40), "checks": PLANTED}
    assert gaps_of(read_manifest(tiny_bundle), checkpoint, data) == []


def test_a_short_one_names_what_it_did_not_reach(tiny_bundle, checkpoint):
    data = {"frames": 4, "boundaries": boundaries(reached=4), "checks": []}
    unreached, planted = gaps_of(read_manifest(tiny_bundle), checkpoint, data)
    assert unreached == (
        "first eviction (frame 5), gist bucket of 32 full (frame 32): 4 frames do not get there; "
        "leave out --frames"
    )
    assert planted == "planted faults: none was planted"


def test_an_instruction_that_the_checkpoint_was_not_given_is_named(tiny_bundle, checkpoint):
    other = replace(checkpoint, prompts={})
    data = {"frames": 40, "boundaries": boundaries(reached=40), "checks": PLANTED}
    (gap,) = gaps_of(read_manifest(tiny_bundle), other, data)
    assert gap.startswith("the stored keys of 'random': ")
    assert "--text-cache DIR --instruction TEXT" in gap


def test_another_contract_has_gaps_that_its_failure_covers(tiny_bundle, checkpoint):
    data = {"frames": 40, "checks": []}
    assert gaps_of(read_manifest(tiny_bundle), checkpoint, data) == []
