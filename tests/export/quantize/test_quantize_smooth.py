"""Smoothing leaves every product what it was, and refuses factors that do not fit."""

import zlib

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
from memorywam_export.quantize.quantize_folds import Fold
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.quantize.quantize_smooth import (
    divide_inputs,
    shared_inputs,
    smoothing_from_table,
)
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bundle import check_bundle, open_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.scale_table import SmoothEntry

INT8 = RECIPES["int8"]


@pytest.fixture(scope="module")
def plain_table(tiny_bundle):
    return random_input_ranges(tiny_bundle, INT8, num_episodes=2, num_frames=2)


@pytest.fixture(scope="module")
def unfolded_bundle(tmp_path_factory):
    """A bundle whose video blocks keep norm * (1 + scale) + shift, and with all steps in one."""
    root = tmp_path_factory.mktemp("unfolded") / "bundle"
    kept = ("fold-modulation", "modulation-table")
    options = ExportOptions(no_rewrites=kept, graphs=("action_denoise",))
    export_bundle(checkpoint_from_argument("random:tiny:0"), root, options)
    return root


def with_factors(table, root):
    """Return a table that smooths all that can be, by random factors of 1/30 to 30."""
    manifest = check_bundle(root)
    smooth = {}
    for shared in shared_inputs(bundle_graphs(root, manifest).sites):
        rng = np.random.default_rng(zlib.crc32(shared.sites[0].name.encode()))
        factors = np.exp(rng.uniform(-3.4, 3.4, shared.sites[0].shape[1]))
        smooth[shared.key] = SmoothEntry(
            alpha=0.5,
            factors=tuple(factors.tolist()),
            sites=tuple(site.key for site in shared.sites),
            error=0.0,
            plain_error=0.0,
        )
    return msgspec.structs.replace(table, smooth=smooth)


def outputs_in_float64(root, graph, inputs, table=None):
    """Return what a graph gives out in float64, smoothed by a table or as it is."""
    graphs = bundle_graphs(root, check_bundle(root))
    model, names, folds = graphs.models[graph], graphs.names[graph], tuple[Fold, ...]()
    if table is not None:
        smoothing = smoothing_from_table(table, graphs.sites, graphs.names)
        own = [one for one in smoothing.inputs if one[0].graph == graph]
        assert own
        divide_inputs(with_wide_constants(model), names, own)
        folds = smoothing.folds
    return wide_outputs(model, names, wide_weights(root, folds), inputs)


def inputs_of(root):
    session = open_bundle(root, num_threads=1, spin=False, allow_unverified=True)
    script = random_script(session.contract, num_frames=3, seed=5)
    drive(session, script, lambda _: None, "test")
    return graph_inputs(session, script, session.manifest)


@pytest.mark.parametrize(
    ("kind", "graph"),
    [
        ("tiny_bundle", "cache_update"),
        ("tiny_bundle", "action_step"),
        ("tiny_bundle_opset20", "cache_update"),
        pytest.param("unfolded_bundle", "cache_update", marks=pytest.mark.proof),
        pytest.param("unfolded_bundle", "action_step", marks=pytest.mark.proof),
        pytest.param("unfolded_bundle", "action_denoise", marks=pytest.mark.proof),
    ],
)
def test_the_graph_computes_the_same(kind, graph, request, plain_table):
    root = request.getfixturevalue(kind)
    inputs = inputs_of(root)[graph]
    expected = outputs_in_float64(root, graph, inputs)
    found = outputs_in_float64(root, graph, inputs, with_factors(plain_table, root))
    for name, other in expected.items():
        assert np.linalg.norm(found[name] - other) <= 1e-12 * np.linalg.norm(other)


def test_every_norm_has_its_products(tiny_bundle):
    shared = shared_inputs(bundle_graphs(tiny_bundle, check_bundle(tiny_bundle)).sites)
    found = {one.key: [site.name.partition("blocks.")[2] for site in one.sites] for one in shared}
    expected = {}
    for graph, expert in (("cache_update", "video"), ("action_step", "action")):
        for layer in range(3):
            parts = [["self_attn.q", "self_attn.k", "self_attn.v"], ["cross_attn.q"], ["ffn.0"]]
            if (expert, layer) == ("video", 2):  # its keys and values alone
                parts = [["self_attn.k", "self_attn.v"]]
            for names in parts:
                key = f"{graph}/mixtures.{expert}.blocks.{layer}.{names[0]}:input"
                expected[key] = [f"{layer}.{name}" for name in names]
    assert found == expected


def test_the_graphs_stay_sound(tiny_bundle, plain_table, tmp_path):
    quantize_bundle(tiny_bundle, tmp_path / "out", INT8, with_factors(plain_table, tiny_bundle))
    for graph, more in (("cache_update", 0), ("action_step", 6)):  # no product, but of a shift
        found = [onnx.load(root / f"{graph}.onnx") for root in (tiny_bundle, tmp_path / "out")]
        onnx.checker.check_model(str(tmp_path / "out" / f"{graph}.onnx"))
        before, after = ([node.op_type for node in one.graph.node].count("Mul") for one in found)
        assert after - before == more


def changed(table, key, **changes):
    smooth = {**table.smooth, key: msgspec.structs.replace(table.smooth[key], **changes)}
    return msgspec.structs.replace(table, smooth=smooth)


KEY = "action_step/mixtures.action.blocks.1.self_attn.q:input"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"factors": (1.0, 2.0)}, "2 factors for .*; expected 16, one for each channel"),
        ({"sites": ("a/b",)}, "for a/b; the bundle has action_step/.*self_attn.q, .*self_attn.k"),
    ],
)
def test_factors_that_do_not_fit_are_refused(
    changes, complaint, tiny_bundle, plain_table, tmp_path
):
    table = changed(with_factors(plain_table, tiny_bundle), KEY, **changes)
    with pytest.raises(InputError, match=complaint):
        quantize_bundle(tiny_bundle, tmp_path / "out", INT8, table)


def test_an_input_that_no_norm_makes_is_refused(tiny_bundle, plain_table, tmp_path):
    table = with_factors(plain_table, tiny_bundle)
    key = "action_step/mixtures.action.blocks.1.ffn.2:input"
    table = msgspec.structs.replace(table, smooth={key: table.smooth[KEY]})
    with pytest.raises(InputError, match="the bundle has no such input behind a norm"):
        quantize_bundle(tiny_bundle, tmp_path / "out", INT8, table)


@pytest.mark.proof
def test_a_weight_of_two_graphs_is_smoothed_in_both_alike(unfolded_bundle, plain_table):
    graphs = bundle_graphs(unfolded_bundle, check_bundle(unfolded_bundle))
    table = with_factors(plain_table, unfolded_bundle)
    other = changed(table, KEY, factors=table.smooth[KEY].factors[::-1])
    with pytest.raises(InputError, match="otherwise than another graph"):
        smoothing_from_table(other, graphs.sites, graphs.names)
    one = msgspec.structs.replace(table, smooth={KEY: table.smooth[KEY]})
    with pytest.raises(InputError, match=r"and not 'action_denoise/.*self_attn"):
        smoothing_from_table(one, graphs.sites, graphs.names)
