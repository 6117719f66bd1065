"""Faults that are planted in a bundle's ONNX files are named; a bundle without any holds."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tests.fakes.bundles import TINY, copy_of, edit_manifest

from memorywam_export.bisect.bisect_report import bisect_bundle
from memorywam_export.bisect.bisect_suspect import Suspect
from memorywam_export.bundles.bundle import ExportOptions, export_bundle
from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.checkpoints.weights import weight_spans
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import sha256_of


def nth(model, kind, index=0):
    """Return a graph's node of a kind, counted in the graph's order."""
    return [node for node in model.graph.node if node.op_type == kind][index]


def reads(model, name, kind=None):
    """Return the first node that reads a value or a weight."""
    nodes = (n for n in model.graph.node if name in n.input and kind in (None, n.op_type))
    return next(nodes)


def constant(model, value, dtype):
    """Add a constant; return its name."""
    name = f"planted_{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
    return name


def attribute(node, **changed):
    """Set attributes of a node."""
    for name, value in changed.items():
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])


def put_before(model, node, index, kind, *others):
    """Have an operator of its own compute one input of a node."""
    made = helper.make_node(kind, [node.input[index], *others], ["planted"], name="node_planted")
    model.graph.node.insert([*model.graph.node].index(node), made)
    node.input[index] = "planted"


def planted(bundle, folder, faults, name="copy"):
    """Return a copy with changed files, and a manifest that is right about them."""
    copy = copy_of(bundle, folder, name)

    def rehash(manifest):
        for graph, change in faults.items():
            path = copy / f"{graph}.onnx"
            model = onnx.load(path, load_external_data=False)
            change(model)
            onnx.save(model, path)
            entry = {"num_bytes": path.stat().st_size, "sha256": sha256_of(path)}
            manifest["files"][path.name] = entry

    edit_manifest(copy, rehash)
    return copy


def named(found):
    """Return graph: (operator, layer, who is to blame) of every fault."""
    return {f.graph: (f.operator, f.place.layer, f.blame) for f in found.faults}


def another_scale(model):
    attribute(nth(model, "Attention", 2), scale=0.5)


def swapped_sub(model):
    node = nth(model, "Sub", 2)
    node.input[0], node.input[1] = node.input[1], node.input[0]


def removed_bias(model):
    node = reads(model, "model.mixtures.action.blocks.1.cross_attn.k.bias")
    for user in model.graph.node:
        for index, name in enumerate(user.input):
            if name == node.output[0]:
                user.input[index] = node.input[0]
    model.graph.node.remove(node)


def sine_for_cosine(model):
    nth(model, "Cos").op_type = "Sin"


def another_gelu(model):
    attribute(nth(model, "Gelu", 1), approximate="none")


def swapped_concat(model):
    node = nth(model, "Concat", 3)
    node.input[0], node.input[1] = node.input[1], node.input[0]


def earlier_slice(model):
    node = nth(model, "Slice", 1)
    node.input[1], node.input[2] = constant(model, [0], np.int64), constant(model, [2], np.int64)


def other_pads(model):
    attribute(nth(model, "Conv", 2), pads=[0, 0, 1, 0, 2, 1])


def clipped(model):
    nth(model, "Clip", 1).input[1] = constant(model, 40.0, np.float32)


def test_a_fault_in_every_graph_is_named_where_it_is(tiny_bundle, tmp_path):
    """Each graph gets right inputs, so that one graph's fault is not another's."""
    faults = {
        "action_modulation": sine_for_cosine,
        "action_step": another_scale,
        "cache_update": swapped_sub,
        "prompt_kv": another_gelu,
        "state_kv": removed_bias,
        "vae_first": earlier_slice,
        "vae_group": swapped_concat,
        "vae_image": clipped,
        "vae_pair": other_pads,
    }
    bundle = planted(tiny_bundle, tmp_path, faults)
    found = bisect_bundle(bundle, checkpoint_from_argument(TINY), keep=tmp_path / "kept")
    assert named(found) == {
        "action_modulation": ("Sin", "outside of every layer", "file"),
        "action_step": ("Attention", "action, block 1", "file"),
        "cache_update": ("Sub", "video, block 1", "file"),
        "prompt_kv": ("Gelu", "action.text_embedding.1", "file"),
        "state_kv": ("Add", "action, block 1, cross_attn.k", "file"),
        "vae_first": ("Slice", "vae.encoder.downsamples.0.downsamples.0.residual.2", "file"),
        "vae_group": ("Concat", "vae.encoder.downsamples.2.downsamples.0.residual.2", "file"),
        "vae_image": ("Clip", "vae.encoder.downsamples.0.downsamples.0.residual.3", "file"),
        "vae_pair": ("Conv", "vae.encoder.downsamples.1.downsamples.0.residual.2", "file"),
    }
    causes = {fault.graph: fault.cause for fault in found.faults}
    assert causes["action_step"] == "attribute scale: found 0.5; expected none"
    assert causes["state_kv"] == "found no Add that makes 'linear_5'"
    # Numbers flow from the images to the actions: that is the order in which faults are told.
    assert [fault.graph for fault in found.faults][:2] == ["vae_first", "vae_image"]
    assert found.note.startswith("the first fault is in vae_first: Slice node_slice_2")
    for fault in found.faults:
        assert fault.error.excess > 1
        assert fault.error_before is None or fault.error_before.ok
    sub = next(fault for fault in found.faults if fault.graph == "cache_update")
    assert "self.self_attn.project" in sub.place.source
    assert max(verdict.num_runs for verdict in found.graphs) < 20
    assert json.loads(json.dumps(found.data))["verdict"] == "failed"
    shows_the_fault(tmp_path / "kept", next(v for v in found.graphs if v.graph == "action_step"))


def shows_the_fault(folder, verdict):
    """What was kept is one operator, which runs alone and is wrong alone."""
    path, numbers = verdict.kept
    assert path == folder / "action_step.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Attention"]
    arrays = np.load(numbers)
    inputs = {n.removeprefix("input."): arrays[n] for n in arrays if n.startswith("input.")}
    (made,) = ReferenceEvaluator(model).run(None, inputs)
    assert np.abs(made - arrays["output.expected"]).max() > 0.1


def next_row(model):
    put_before(model, nth(model, "TensorScatter", 3), 2, "Add", constant(model, [1], np.int64))


def swapped_queries_and_keys(model):
    q, k = (map_of(model, f"video.blocks.1.self_attn.{part}.weight") for part in "qk")
    q.input[0], k.input[0] = k.input[0], q.input[0]


def map_of(model, name):
    return reads(model, name, "Transpose")


def another_epsilon(model):
    node = next(n for n in model.graph.node if n.op_type == "Add" and "mean_1" in n.input)
    node.input[1] = constant(model, 1e-4, np.float32)


def transposed_weight(model):
    weight = map_of(model, "model.mixtures.action.text_embedding.2.weight")
    attribute(weight, perm=[0, 1])


def test_what_is_subtle_is_named_too(tiny_bundle, tmp_path):
    faults = {
        "action_step": next_row,
        "cache_update": swapped_queries_and_keys,
        "prompt_kv": transposed_weight,
        "state_kv": another_epsilon,
    }
    bundle = planted(tiny_bundle, tmp_path, faults)
    found = bisect_bundle(bundle, checkpoint_from_argument(TINY), graphs=faults, num_frames=3)
    assert named(found) == {
        "action_step": ("TensorScatter", "action, block 1", "file"),
        "cache_update": ("Transpose", "video, block 1, self_attn.q", "file"),
        "prompt_kv": ("Transpose", "action.text_embedding.2", "file"),
        "state_kv": ("Add", "action, block 1, cross_attn.norm_k", "file"),
    }
    step = next(fault for fault in found.faults if fault.graph == "action_step")
    assert (step.value, step.last_good) == ("memory_out.01.v", "transpose_8")


def negated_sine(model):
    put_before(model, reads(model, "rope_sin"), 1, "Neg")


def other_part(model):
    node = nth(model, "Slice", 2)
    node.input[1], node.input[2] = nth(model, "Slice", 3).input[1:3]


@pytest.mark.proof
def test_graphs_that_give_new_rows_out_and_half_precision(tiny_bundle_opset20, tmp_path):
    """The faults beside them hold in their form: opset 20, and 11 bits."""
    checkpoint = checkpoint_from_argument(TINY)
    graphs = ("state_kv", "action_step")
    bundle = planted(tiny_bundle_opset20, tmp_path, {"action_step": other_part})
    found = bisect_bundle(bundle, checkpoint, graphs=graphs, num_frames=3)
    assert named(found) == {"action_step": ("Slice", "action, block 0", "file")}
    assert [verdict.ok for verdict in found.graphs] == [True, False]

    options = ExportOptions(precision="fp16", opset=20)
    export_bundle(checkpoint, tmp_path / "half", options)
    graphs = ("state_kv", "cache_update")
    bundle = planted(tmp_path / "half", tmp_path, {"cache_update": negated_sine}, "harmed")
    found = bisect_bundle(bundle, checkpoint, graphs=graphs, num_frames=3)
    assert named(found) == {"cache_update": ("Mul", "video, block 0", "file")}
    assert [verdict.ok for verdict in found.graphs] == [True, False]


def test_an_unharmed_bundle_holds_value_by_value(tiny_bundle):
    found = bisect_bundle(tiny_bundle, checkpoint_from_argument(TINY))
    assert found.ok, found.rows
    assert found.note.startswith("every value inside every graph holds")
    assert {verdict.graph for verdict in found.graphs} == set(read_manifest(tiny_bundle).graphs)
    for verdict in found.graphs:
        assert verdict.num_compared > verdict.num_values / 2
        assert verdict.excess < 0.5  # measured: 0.3 at most
        assert verdict.trace_error < 1e-9
    assert len(found.headers) == len(found.rows[0])


def test_a_weight_that_is_not_the_checkpoints_is_named(tiny_bundle, tmp_path):
    copy = copy_of(tiny_bundle, tmp_path)
    path = copy / "weights.safetensors"
    span = weight_spans(path)["mixtures.action.blocks.2.cross_attn.v.bias"]
    values = np.memmap(path, np.float32, "r+", span.offset, (span.num_bytes // 4,))
    values[3] += 0.25
    values.flush()
    del values

    def rehash(manifest):
        manifest["files"][path.name]["sha256"] = sha256_of(path)

    edit_manifest(copy, rehash)
    checkpoint = checkpoint_from_argument(TINY)
    (fault,) = bisect_bundle(copy, checkpoint, graphs=["state_kv"], num_frames=1).faults
    assert fault.blame == "weights"
    assert fault.place.layer == "action, block 2, cross_attn.v"
    assert "cross_attn.v.bias' is not the checkpoint's: 0.25 apart" in fault.cause


def test_a_runtime_that_is_wrong_is_told_from_a_file_that_is(tiny_bundle, monkeypatch):
    right = Suspect.run

    def wrong(self, names, backend):
        return {n: v + 0.01 * (n == "gelu") for n, v in right(self, names, backend).items()}

    monkeypatch.setattr(Suspect, "run", wrong)
    checkpoint = checkpoint_from_argument(TINY)
    (fault,) = bisect_bundle(tiny_bundle, checkpoint, graphs=["state_kv"], num_frames=1).faults
    assert (fault.operator, fault.blame) == ("Gelu", "runtime")
    assert "right in ONNX's reference" in fault.cause


def test_what_is_wrong_only_while_nothing_is_given_out_is_a_fusion(tiny_bundle, monkeypatch):
    right = Suspect.run_whole

    def wrong(self, root, backend):
        return {n: v + 0.01 for n, v in right(self, root, backend).items()}

    monkeypatch.setattr(Suspect, "run_whole", wrong)
    checkpoint = checkpoint_from_argument(TINY)
    (fault,) = bisect_bundle(tiny_bundle, checkpoint, graphs=["state_kv"], num_frames=1).faults
    assert fault.blame == "fusion"


def unknown_shape(model):
    node = nth(model, "Reshape", 1)
    node.input[1] = constant(model, [1, 1, 5, 7], np.int64)


def test_a_graph_that_does_not_even_run_is_searched_all_the_same(tiny_bundle, tmp_path):
    bundle = planted(tiny_bundle, tmp_path, {"state_kv": unknown_shape})
    checkpoint = checkpoint_from_argument(TINY)
    (fault,) = bisect_bundle(bundle, checkpoint, graphs=["state_kv"], num_frames=1).faults
    assert (fault.operator, fault.value) == ("Reshape", "view_1")
    assert fault.error.rms == np.inf


def test_what_cannot_be_bisected_is_refused(tiny_bundle, tmp_path):
    checkpoint = checkpoint_from_argument(TINY)
    with pytest.raises(InputError, match="name the checkpoint that it was exported from"):
        bisect_bundle(tiny_bundle, checkpoint_from_argument("random:tiny-fastwam"))
    with pytest.raises(InputError, match="graph 'nonsense'; expected some of"):
        bisect_bundle(tiny_bundle, checkpoint, graphs=["nonsense"])
    with pytest.raises(InputError, match="expected 1 to 256"):
        bisect_bundle(tiny_bundle, checkpoint, num_frames=0)
    copy = copy_of(tiny_bundle, tmp_path)
    edit_manifest(copy, lambda manifest: manifest.update(precision="bf16"))
    with pytest.raises(InputError, match="export the checkpoint with --precision fp32"):
        bisect_bundle(copy, checkpoint)
