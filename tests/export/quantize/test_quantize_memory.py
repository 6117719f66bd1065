"""The window of memory in 8 bits: what is stored, what is seen, and that all else stays exact."""

import dataclasses

import msgspec
import numpy as np
import pytest
from tests.fakes.bundles import Rung, copy_of, differences, edit_manifest, rung
from tests.fakes.driver import Driver

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_memory import (
    Window,
    check_window,
    rotary_pairs,
    window_from_table,
)
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bench.bench_sizes import memory_bytes
from memorywam_runtime.bundle import check_bundle, open_bundle, read_prompt
from memorywam_runtime.contract import MemorySizes
from memorywam_runtime.digest import memory_digest
from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.manifest import Rewrite, manifest_from_json, manifest_to_json
from memorywam_runtime.tensors import decoded

NUM_FRAMES = 9
"""Two anchors, and the ring of three twice over; the gist buckets grow on the way."""
BUCKETS = (2, 5, 64)
STEP = {"kv-int8": 0.5, "kv-fp8": 16.0}
"""Half the widest step between two numbers of the type, in units of the scale."""
ENDS = {"kv-int8": (-128, 127), "kv-fp8": (-448, 448)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A bundle as exported, and one made from it whose window is narrow."""

    wide: Rung
    narrow: Rung
    window: Window

    def drivers(self):
        return [
            Driver(one.session(*BUCKETS), read_prompt(one.root, one.manifest, "random"))
            for one in (self.wide, self.narrow)
        ]

    def scales(self, name):
        """Return the scale of each channel [heads, 1, head_dim] in the wide bundle's units."""
        memory, contract = self.window.memory, self.wide.manifest.contract
        layer, part = int(name.split(".")[1]), name[-1]
        taker = {"k": "norm_q.weight", "v": "o.weight"}[part]
        (fold,) = (
            fold
            for fold in self.window.folds
            if fold.tensor == f"mixtures.action.blocks.{layer}.self_attn.{taker}"
        )
        scalar = (memory.key_scales if part == "k" else memory.value_scales)[layer]
        return scalar * np.reshape(fold.factors, (contract.num_heads, 1, contract.head_dim))


@pytest.fixture(scope="module")
def tables(tiny_bundle, tiny_bundle_opset20):
    return {
        (root, name): random_input_ranges(root, RECIPES[name], num_episodes=2, num_frames=4)
        for root in (tiny_bundle, tiny_bundle_opset20)
        for name in ("kv-int8", "kv-fp8")
    }


@pytest.fixture(
    scope="module",
    params=[(b, n) for b in ("tiny_bundle", "tiny_bundle_opset20") for n in STEP],
    ids=lambda param: "-".join(param),
)
def pair(request, tables, tmp_path_factory):
    bundle, name = request.param
    root, recipe = request.getfixturevalue(bundle), RECIPES[name]
    out = tmp_path_factory.mktemp("narrow") / name
    quantize_bundle(root, out, recipe, tables[root, name])
    window = window_from_table(check_bundle(root), recipe, tables[root, name])
    return Pair(wide=rung("ort", root), narrow=rung("ort", out), window=window)


def recipe_of(pair):
    return pair.narrow.manifest.quantization.recipe


def narrow_values(pair, session):
    """Return the window's numbers in units of their scales [heads, rows, head_dim], by tensor."""
    return {
        spec.name: decoded(session.backend.read(array), spec.dtype)[0].astype(np.float64)
        for name, (spec, array) in session.calls.remembered(session.buffers.num_rows).items()
        if name.startswith("window.")
    }


def test_all_but_the_rounding_of_the_window_is_exact(pair):
    """The plain session gets what the window stands for in its rows: then both act alike."""
    plain, narrow = pair.drivers()
    rows = plain.session.memory.rows
    num_anchors = plain.session.contract.memory.num_anchors
    for frame in range(NUM_FRAMES):
        if frame > num_anchors:
            place = narrow.session.memory.slot_of(frame - 1)
            first, slot = narrow.session.memory.rows.window(place), rows.slot(place)
            for name, values in narrow_values(pair, narrow.session).items():
                array = plain.session.calls.memory[name.replace("window", "memory")]
                held = plain.session.backend.read(array)
                stands_for = values[:, first : first + rows.num_visual] * pair.scales(name)
                assert not np.array_equal(held[0, :, slot : slot + rows.num_visual], stands_for)
                held[0, :, slot : slot + rows.num_visual] = stands_for
                plain.session.backend.write(array, held)
        found, wanted = narrow.frames(frame, frame + 1), plain.frames(frame, frame + 1)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


def test_the_window_holds_every_frame_rounded_to_nearest(pair):
    plain, narrow = pair.drivers()
    rows, narrow_rows = plain.session.memory.rows, narrow.session.memory.rows
    num_anchors = plain.session.contract.memory.num_anchors
    plain.frames(num_anchors + 1)
    narrow.frames(num_anchors + 1)  # frames so far are seen in the bundle's type alone
    slot, first = rows.slot(num_anchors), narrow_rows.window(num_anchors)
    for name, values in narrow_values(pair, narrow.session).items():
        array = plain.session.calls.memory[name.replace("window", "memory")]
        held = plain.session.backend.read(array)[0, :, slot : slot + rows.num_visual]
        wanted = np.clip(held / pair.scales(name), *ENDS[recipe_of(pair)])
        error = values[:, first : first + rows.num_visual] - wanted
        assert np.abs(error).max() <= STEP[recipe_of(pair)] * 1.001


def test_until_the_window_is_read_nothing_differs(pair):
    plain, narrow = pair.drivers()
    untouched = plain.session.contract.memory.num_anchors + 1
    wanted, found = plain.frames(untouched + 1), narrow.frames(untouched + 1)
    np.testing.assert_allclose(found[:-1], wanted[:-1], rtol=0, atol=2e-6)
    assert np.abs(found[-1] - wanted[-1]).max() > 1e-5


def test_rounding_of_the_window_is_small(pair):
    plain, narrow = pair.drivers()
    wanted, found = plain.frames(NUM_FRAMES), narrow.frames(NUM_FRAMES)
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert 0 < error < {"kv-int8": 0.01, "kv-fp8": 0.05}[recipe_of(pair)]


@pytest.mark.parametrize("cut", [1, 3, 4, 7])
def test_a_restored_session_goes_on_bit_for_bit(pair, cut):
    _, first = pair.drivers()
    first.frames(cut)
    snapshot = first.session.snapshot()
    digest = memory_digest(first.session)
    wanted = first.frames(cut, NUM_FRAMES)
    _, other = pair.drivers()
    other.seed = 4
    other.frames(NUM_FRAMES - cut)
    assert memory_digest(other.session) != digest
    for session in (first.session, other.session):
        session.restore(snapshot)
        assert differences(session.snapshot(), snapshot) == []
        assert memory_digest(session) == digest
        driver = Driver.__new__(Driver)
        driver.session, driver.seed = session, 0
        assert driver.frames(cut, NUM_FRAMES).tobytes() == wanted.tobytes()


def test_a_reset_session_is_a_new_one(pair):
    _, driver = pair.drivers()
    wanted, new = driver.frames(NUM_FRAMES), driver.session.snapshot()
    text = read_prompt(pair.narrow.root, pair.narrow.manifest, "random")
    driver.session.reset(text)
    assert driver.frames(NUM_FRAMES).tobytes() == wanted.tobytes()
    assert differences(driver.session.snapshot(), new) == []


def test_a_snapshot_without_the_window_is_refused(pair):
    _, driver = pair.drivers()
    driver.frames(2)
    taken = driver.session.snapshot()
    arrays = {n: a for n, a in taken.arrays.items() if n != "window.01.v"}
    with pytest.raises(InputError, match=r"missing \['window.01.v'\]"):
        driver.session.restore(msgspec.structs.replace(taken, arrays=arrays))


def test_the_digest_sees_the_rows_in_use_alone(pair):
    _, driver = pair.drivers()
    session = driver.session
    num_anchors = session.contract.memory.num_anchors
    driver.frames(num_anchors + 2)  # two frames in the ring, its last place is free
    rows, digest = session.memory.rows, memory_digest(session)
    array = session.calls.remembered(session.buffers.num_rows)["window.00.k"][1]
    for slot, is_used in ((num_anchors, True), (num_anchors + 2, False)):
        before = session.backend.read(array)
        changed = before.copy()
        changed[:, :, rows.window(slot)] ^= 1
        session.backend.write(array, changed)
        assert (memory_digest(session) != digest) == is_used
        session.backend.write(array, before)


def test_the_manifest_says_how_memory_is_kept(pair):
    before, after = pair.wide.manifest, check_bundle(pair.narrow.root)
    kind = {"kv-int8": "int8", "kv-fp8": "float8e4m3fn"}[recipe_of(pair)]
    told = after.quantization
    assert told is not None
    assert told.memory is not None
    assert told.memory == pair.window.memory
    assert told.memory.dtype == kind
    assert len(told.memory.key_scales) == after.contract.num_layers
    assert (told.sites, told.wide) == ((), {})
    assert manifest_from_json(manifest_to_json(after)) == after
    step, was = after.graphs["action_step"], before.graphs["action_step"]
    windows = [spec for spec in step.inputs if spec.name.startswith("window.")]
    shape = (after.contract.num_heads, after.rows.num_window, after.contract.head_dim)
    assert {(spec.shape, spec.dtype) for spec in windows} == {((1, *shape), kind)}
    assert len(windows) == 2 * after.contract.num_layers
    assert step.cost is not None
    assert was.cost is not None
    more = was.cost.flops_per_row * after.rows.num_window
    assert step.cost.flops - was.cost.flops == more > 0
    changed = {name for name, graph in after.graphs.items() if graph.quantized}
    assert changed == {"cache_update", "action_step", "action_denoise"} & set(after.graphs)


@pytest.mark.parametrize("frames", [1, 4, 20])
def test_bytes_of_memory_are_those_of_the_session(pair, frames):
    manifest = pair.narrow.manifest
    session = pair.narrow.session(*manifest.memory.gist_buckets)
    assert session.buffers.num_bytes == memory_bytes(manifest, 1)
    saved = memory_bytes(pair.wide.manifest, frames) - memory_bytes(manifest, frames)
    token = manifest.memory.bytes_per_token
    rows, kept = pair.wide.manifest.rows, pair.narrow.manifest.rows
    assert saved == (rows.total(1) - kept.total(1)) * token - kept.num_window * token // 4


def test_a_bundle_that_lost_its_window_is_refused(pair, tmp_path):
    bundle = copy_of(pair.narrow.root, tmp_path)

    def forget(manifest):
        manifest["quantization"]["memory"] = None

    edit_manifest(bundle, forget)
    with pytest.raises(BundleError, match=r"graph 'action_step' does not fit .*'window.00.k'"):
        open_bundle(bundle)


def changed_contract(root, change):
    manifest = check_bundle(root)
    return msgspec.structs.replace(manifest, contract=change(manifest.contract))


def with_conventions(**changed):
    return lambda contract: msgspec.structs.replace(
        contract, conventions=msgspec.structs.replace(contract.conventions, **changed)
    )


def with_window(num_recent):
    sizes = MemorySizes(num_anchors=1, num_recent=num_recent, num_gists=2)
    return lambda contract: msgspec.structs.replace(contract, memory=sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_conventions(action_history=True), "keeps executed actions in memory; expected one"),
        (with_window(1), "found a window of 1 frame; expected at least 2 for kv-int8"),
        (lambda _: contract_from_preset("tiny-fastwam"), "found a window of 1 frame; expected"),
    ],
)
def test_memory_without_a_window_of_frames_alone_is_refused(tiny_bundle, change, message):
    with pytest.raises(InputError, match=message):
        check_window(changed_contract(tiny_bundle, change), RECIPES["kv-int8"])


def test_a_window_of_two_frames_is_taken(tiny_bundle):
    check_window(changed_contract(tiny_bundle, with_window(2)), RECIPES["kv-int8"])


def without_layer(table):
    entries = {name: entry for name, entry in table.entries.items() if name != "memory.01.v"}
    return msgspec.structs.replace(table, entries=entries)


def with_entry(table, **changed):
    entry = msgspec.structs.replace(table.entries["memory.00.k"], **changed)
    return msgspec.structs.replace(table, entries=table.entries | {"memory.00.k": entry})


def with_a_torn_pair(table):
    scales = table.entries["memory.00.k"].scales
    return with_entry(table, scales=(2 * scales[0], *scales[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_layer, r"has no 'memory.01.v'; expected scales of every layer's keys and values"),
        (lambda t: with_entry(t, dtype="fp8"), r"has memory fp8, axis 1, 24 scales for 'memory.00"),
        (lambda t: with_entry(t, axis=0), r"axis 0, 24 scales for 'memory.00.k'; expected memory"),
        (lambda t: with_entry(t, kind="weight"), r"has weight int8, axis 1"),
        (with_a_torn_pair, r"two scales for a rotary pair of 'memory.00.k'; expected one for both"),
        (
            lambda t: msgspec.structs.replace(t, graph_sha256s={}),
            r"no hash of graph 'cache_update'",
        ),
        (lambda t: None, r"found no scale table; expected one for kv-int8, which quantizes memory"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tiny_bundle, tables, tmp_path, change, message):
    table = change(tables[tiny_bundle, "kv-int8"])
    with pytest.raises(InputError, match=message):
        quantize_bundle(tiny_bundle, tmp_path / "out", RECIPES["kv-int8"], table)
    assert not (tmp_path / "out").exists()


def test_rotary_pairs_are_those_that_the_graphs_turn(tiny_bundle):
    contract = contract_from_preset("tiny")
    width, half = contract.attention_width, contract.head_dim // 2
    layouts: list[tuple[tuple[Rewrite, ...], int]] = [((), 1), (("rope-halves",), half)]
    for rewrites, second in layouts:
        pairs = rotary_pairs(contract, rewrites)
        assert sorted(pairs.ravel()) == list(range(width))
        assert (pairs[:, 1] - pairs[:, 0] == second).all()


def test_torch_refuses_a_narrow_window(pair):
    with pytest.raises(BundleError, match="found a window of memory in 8 bits; expected a bundle"):
        open_bundle(pair.narrow.root, backend="eager")
