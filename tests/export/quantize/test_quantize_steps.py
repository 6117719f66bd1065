"""Gains by step leave every step what it was, and travel with the modulation."""

import msgspec
import numpy as np
import onnx
import pytest
from tests.fakes.wide_graphs import wide_outputs, wide_weights, with_wide_constants

from memorywam_export.bundles.bundle import ExportOptions, export_bundle
from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.parity.parity import drive, random_script
from memorywam_export.parity.parity_graphs import graph_inputs
from memorywam_export.quantize.quantize import bundle_graphs, quantize_bundle
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.quantize.quantize_report import compared_with_float, suspects
from memorywam_export.quantize.quantize_smooth import shared_inputs
from memorywam_export.quantize.quantize_steps import check_steps, stepped_inputs, with_gains
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bundle import check_bundle, open_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.scale_table import SmoothEntry, StepEntry

INT8 = RECIPES["int8"]
TIMESTEPS = (1000.0, 600.0, 0.0)
GAINS = (1.5, 1.0, 3.0)
KEY = "action_step/mixtures.action.blocks.1.ffn.0:input"


@pytest.fixture(scope="module")
def plain_table(tiny_bundle):
    return random_input_ranges(tiny_bundle, INT8, num_episodes=2, num_frames=2)


@pytest.fixture(scope="module")
def table(plain_table, tiny_bundle):
    """A table with gains for every input that can have them, each with some of its own."""
    sites = bundle_graphs(tiny_bundle, check_bundle(tiny_bundle)).sites
    steps = {
        shared.key: StepEntry(
            timesteps=TIMESTEPS,
            gains=tuple(gain * (1 + 0.1 * number) for gain in GAINS),
            sites=tuple(site.key for site in shared.sites),
            ratio=2.0,
            error=0.0,
            plain_error=0.0,
        )
        for number, shared in enumerate(stepped_inputs(sites))
    }
    return msgspec.structs.replace(plain_table, steps=steps)


@pytest.fixture(scope="module")
def inputs(tiny_bundle):
    session = open_bundle(tiny_bundle, num_threads=1, spin=False, allow_unverified=True)
    script = random_script(session.contract, num_frames=3, seed=5)
    drive(session, script, lambda _: None, "test")
    return graph_inputs(session, script, session.manifest)


def test_inputs_behind_a_modulated_norm_can_have_them(table):
    assert set(table.steps) == {
        f"action_step/mixtures.action.blocks.{layer}.{part}:input"
        for layer in range(3)
        for part in ("self_attn.q", "ffn.0")
    }


@pytest.mark.parametrize(("timestep", "nearest"), [(1000.0, 0), (790.0, 1), (310.0, 1), (20.0, 2)])
def test_a_step_computes_the_same(timestep, nearest, table, tiny_bundle, inputs):
    weights, found = wide_weights(tiny_bundle), []
    for one in (None, table):
        graphs = bundle_graphs(tiny_bundle, check_bundle(tiny_bundle))
        models = {graph: with_wide_constants(model) for graph, model in graphs.models.items()}
        if one is not None:
            manifest = with_gains(models, check_bundle(tiny_bundle), graphs.sites, one)
            assert manifest.graphs["action_step"].inputs[1].fixed_shape[1] == 7
        given = {"timestep": np.array([timestep])}
        maker = "action_modulation"
        modulation = wide_outputs(models[maker], graphs.names[maker], weights, given)
        names = graphs.names["action_step"]
        every = inputs["action_step"] | modulation
        found.append((modulation, wide_outputs(models["action_step"], names, weights, every)))
    (plain, expected), (longer, outputs) = found
    assert (longer["modulation"][:, :6] == plain["modulation"]).all()
    gains = [entry.gains[nearest] for _, entry in sorted(table.steps.items())]
    assert longer["modulation"][0, 6, : len(gains)].tolist() == gains
    for name, other in expected.items():
        assert np.linalg.norm(outputs[name] - other) <= 1e-12 * np.linalg.norm(other)


def test_a_session_needs_to_know_nothing(table, tiny_bundle, tmp_path):
    # As wide as the largest gain asks for: here no range was chosen for them.
    wide = {
        key: msgspec.structs.replace(one, scales=(one.scales[0] * 5,))
        if key.rpartition(":")[0] in {site for e in table.steps.values() for site in e.sites}
        else one
        for key, one in table.entries.items()
    }
    changed = msgspec.structs.replace(table, entries=wide)
    made = quantize_bundle(tiny_bundle, tmp_path / "out", INT8, changed)
    assert check_bundle(tmp_path / "out") == made
    for graph in ("action_step", "action_modulation"):
        onnx.checker.check_model(str(tmp_path / "out" / f"{graph}.onnx"))
    assert suspects(compared_with_float(tiny_bundle, tmp_path / "out"), "int8") == []
    traces = []
    for root in (tiny_bundle, tmp_path / "out"):
        session = open_bundle(root, num_threads=1, spin=False, allow_unverified=True)
        script = random_script(session.contract, num_frames=3, seed=3)
        traces.append(drive(session, script, lambda _: None, "test").actions)
    error = np.linalg.norm(traces[1] - traces[0]) / np.linalg.norm(traces[0])
    assert 0 < error < 0.1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sites": ("a/b",)}, "gains for .* of a/b; the bundle has action_step/.*ffn.0; expected"),
        ({"timesteps": (1.0, 2.0, 3.0)}, "gains for 2 lists of timesteps; expected one list"),
    ],
)
def test_gains_that_do_not_fit_are_refused(changes, complaint, table, tiny_bundle, tmp_path):
    steps = {**table.steps, KEY: msgspec.structs.replace(table.steps[KEY], **changes)}
    with pytest.raises(InputError, match=complaint):
        quantize_bundle(
            tiny_bundle, tmp_path / "out", INT8, msgspec.structs.replace(table, steps=steps)
        )


def test_an_input_without_modulation_is_refused(table, tiny_bundle, tmp_path):
    key = "action_step/mixtures.action.blocks.1.cross_attn.q:input"
    steps = {key: table.steps[KEY]}
    with pytest.raises(InputError, match="the bundle has no such input behind a modulated norm"):
        quantize_bundle(
            tiny_bundle, tmp_path / "out", INT8, msgspec.structs.replace(table, steps=steps)
        )


def test_a_bundle_without_a_table_of_modulations_is_refused(tiny_bundle):
    manifest = msgspec.structs.replace(check_bundle(tiny_bundle), rewrites=("rope-halves",))
    with pytest.raises(InputError, match=r"found the rewrites rope-halves .* expected modul"):
        check_steps(manifest)


@pytest.mark.proof
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_types_fit_in_a_narrow_bundle(precision, table, tmp_path):
    root = tmp_path / "exported"
    checkpoint = checkpoint_from_argument("random:tiny:0")
    manifest = export_bundle(checkpoint, root, ExportOptions(precision=precision, opset=24))
    smooth = {
        shared.key: SmoothEntry(
            alpha=0.5,
            factors=(1.5,) * shared.sites[0].shape[1],
            sites=tuple(site.key for site in shared.sites),
            error=0.0,
            plain_error=0.0,
        )
        for shared in shared_inputs(bundle_graphs(root, manifest).sites)
    }
    hashes = {graph: manifest.files[entry.file].sha256 for graph, entry in manifest.graphs.items()}
    own = msgspec.structs.replace(
        table, graph_sha256s=hashes, smooth=smooth, contract_hash=manifest.contract_hash,
        checkpoint_sha256=manifest.source.sha256,
    )  # fmt: skip
    quantize_bundle(root, tmp_path / "out", INT8, own)
    for graph in ("cache_update", "action_step", "action_modulation"):
        onnx.checker.check_model(str(tmp_path / "out" / f"{graph}.onnx"), full_check=True)
