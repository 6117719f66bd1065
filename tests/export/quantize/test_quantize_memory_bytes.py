"""What memory takes by episode length: told as it is allocated, wide and with a narrow window."""

import msgspec
import pytest

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.eager.eager import memory_plan
from memorywam_export.quantize.quantize_memory_bytes import FRAMES, memory_bytes_rows
from memorywam_runtime.bench.bench_sizes import memory_bytes
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import MemoryQuantization, Quantization
from memorywam_runtime.memory import Rows

MAX_FRAMES = 1024


def manifest_of(root, preset, max_frames=MAX_FRAMES, bytes_per_element=2):
    contract = contract_from_preset(preset)
    plan = memory_plan(contract, max_frames, "refuse", bytes_per_element)
    return msgspec.structs.replace(read_manifest(root), contract=contract, memory=plan)


@pytest.mark.parametrize("preset", ["tiny", "robotwin-384x320", "d455-256x352"])
def test_the_window_is_half_and_a_slot_more_is_kept(tiny_bundle, preset):
    manifest = manifest_of(tiny_bundle, preset)
    contract, token = manifest.contract, manifest.memory.bytes_per_token
    found = memory_bytes_rows(manifest)
    assert [row.frames for row in found] == list(FRAMES)
    plain, ring = Rows(contract), contract.num_ring_slots
    for row in found:
        halves = ring * contract.num_visual * token // 2
        assert row.wide - row.narrow == (ring - 1) * plain.slot_size * token - halves
        assert row.share == row.narrow / row.wide < 1
        assert row.full_history == row.frames * contract.num_visual * token
    assert [row.wide for row in found] == sorted(row.wide for row in found)


def test_a_bundle_that_is_narrow_already_has_the_same_table(tiny_bundle):
    wide = manifest_of(tiny_bundle, "tiny")
    kept = MemoryQuantization(dtype="float8e4m3fn", key_scales=(), value_scales=())
    told = Quantization(recipe="kv-fp8", table=None, sites=(), wide={}, memory=kept)
    narrow = msgspec.structs.replace(wide, quantization=told)
    assert memory_bytes_rows(narrow) == memory_bytes_rows(wide)
    assert memory_bytes_rows(narrow)[0].narrow == memory_bytes(narrow, 1)


def test_lengths_that_memory_cannot_hold_are_left_out(tiny_bundle):
    found = memory_bytes_rows(manifest_of(tiny_bundle, "tiny", max_frames=60))
    assert [row.frames for row in found] == [1, 10, 60]


def test_memory_without_a_window_is_refused(tiny_bundle):
    with pytest.raises(InputError, match="found a window of 1 frame"):
        memory_bytes_rows(manifest_of(tiny_bundle, "tiny-fastwam"))
