"""A bundle opens whole, or says what is wrong with it."""

import json
import shutil
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.bundles import copy_of, edit_manifest
from tests.fakes.rungs import NEWEST_OPSET, ORT_RUNGS
from tests.runtime.test_manifest import mutated

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_runtime.bundle import check_bundle, open_bundle, read_manifest, read_prompt
from memorywam_runtime.errors import BundleError, InputError, MissingPartError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.memory import Visible

OPTIONS: dict[str, Any] = {"num_threads": 1, "spin": False}


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return copy_of(tiny_bundle, tmp_path)


def refuses(bundle, message):
    """Opening says this, and so does checking."""
    with pytest.raises(BundleError, match=message):
        check_bundle(bundle)
    with pytest.raises(BundleError, match=message):
        open_bundle(bundle, **OPTIONS)


FILES = [
    "weights.safetensors", "vae_first.onnx", "vae_image.onnx", "vae_pair.onnx", "vae_group.onnx",
    "cache_update.onnx", "state_kv.onnx", "action_step.onnx", "prompt_kv.onnx",
]  # fmt: skip


@pytest.mark.parametrize("rung", ORT_RUNGS)
def test_a_whole_bundle_opens(rung, tiny_bundle, tiny_bundle_opset20):
    bundle = tiny_bundle_opset20 if rung == "ort copy" else tiny_bundle
    session = open_bundle(bundle, **OPTIONS)
    assert session.contract.name == "tiny"
    assert session.manifest.cache_write == rung.removeprefix("ort ").replace(" ", "_")
    assert session.root == bundle
    listed = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert listed == {*session.manifest.files, "manifest.json"}


def test_a_bundle_may_be_moved(bundle, tmp_path):
    moved = tmp_path / "Käse 食べる"
    shutil.move(bundle, moved)
    open_bundle(str(moved), **OPTIONS)


def test_what_is_no_bundle_is_said_to_be_none(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            BundleError, match=r"no bundle at .*has no manifest.json; make one with"
        ):
            open_bundle(path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    refuses(bundle, f"{name} is missing; export again, or copy the whole folder")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(bundle, name):
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[:-1])
    refuses(bundle, f"{name} has {len(content) - 1} bytes; expected {len(content)}: the copy is")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, -1, "middle"])
def test_one_flipped_bit_is_found(bundle, name, place):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2 if place == "middle" else place] ^= 1
    (bundle / name).write_bytes(content)
    refuses(bundle, f"{name} hashes to .*; expected .*: the file was damaged or changed")


def test_a_damaged_prompt_is_found(bundle):
    (prompt,) = (bundle / "prompts").iterdir()
    prompt.write_bytes(prompt.read_bytes()[:-4])
    refuses(bundle, rf"prompts/{prompt.name} has \d+ bytes; expected")


def test_a_folder_in_place_of_a_file_is_refused(bundle):
    (bundle / "state_kv.onnx").unlink()
    (bundle / "state_kv.onnx").mkdir()
    refuses(bundle, "state_kv.onnx is missing")


def test_a_wrong_hash_in_the_manifest_is_refused(bundle):
    edit_manifest(bundle, lambda m: m["files"]["state_kv.onnx"].update(sha256="0" * 64))
    refuses(bundle, r"state_kv.onnx hashes to .*; expected 000000000000\.\.\.")


@pytest.mark.parametrize("name", ["state_kv.onnx", "prompt"])
def test_a_file_without_a_hash_is_refused(bundle, name):
    if name == "prompt":
        name = read_manifest(bundle).prompts[0].file
    edit_manifest(bundle, lambda m: m["files"].pop(name))
    refuses(bundle, f"the manifest names {name} without its hash")


@pytest.mark.parametrize("graph", [file.partition(".")[0] for file in FILES[1:]])
def test_a_missing_graph_is_named(bundle, graph):
    edit_manifest(bundle, lambda m: m["graphs"].pop(graph))
    refuses(bundle, f"the manifest has no graph '{graph}'; export again")


def test_a_manifest_that_is_garbage_is_refused(bundle):
    (bundle / "manifest.json").write_bytes(b"\xff" * 100)
    refuses(bundle, "manifest: ")


def test_another_schema_version_is_refused(bundle):
    edit_manifest(bundle, lambda m: m.update(schema_version=7))
    refuses(bundle, "found schema version 7; this release reads 1")


def test_an_edited_contract_is_refused(bundle):
    edit_manifest(bundle, lambda m: m["contract"]["memory"].update(num_recent=4))
    refuses(bundle, "the contract was edited; export again")


def test_the_contract_asked_for_must_be_the_bundles(tiny_bundle):
    own = contract_from_preset("tiny").hash
    open_bundle(tiny_bundle, contract_hash=own, **OPTIONS)
    other = contract_from_preset("demo").hash
    message = rf"is for contract {own[:12]}\.\.\. \('tiny'\); expected {other[:12]}"
    with pytest.raises(BundleError, match=message):
        open_bundle(tiny_bundle, contract_hash=other, **OPTIONS)


def test_an_unknown_backend_lists_the_known(tiny_bundle):
    with pytest.raises(MissingPartError, match=r"unknown backend 'abacus'; expected one of .*ort"):
        open_bundle(tiny_bundle, backend="abacus")


def test_parts_of_memory_may_be_hidden(tiny_bundle):
    session = open_bundle(tiny_bundle, visible=Visible(gists=False), **OPTIONS)
    assert session.memory.visible == Visible(gists=False)


@pytest.mark.parametrize(
    "name", ["../x", "prompts/../../x", "/etc/hostname", "", ".", "a\\..\\b", "//x", ".."]
)
@pytest.mark.parametrize("where", ["files", "graphs", "prompts"])
def test_names_that_leave_the_bundle_are_refused(bundle, name, where):
    (bundle.parent / "x").write_bytes(b"secret")

    def change(m):
        entry = {"num_bytes": 6, "sha256": sha256_of(bundle.parent / "x")}
        if where == "graphs":
            m["graphs"]["state_kv"]["file"] = name
        elif where == "prompts":
            m["prompts"][0]["file"] = name
        m["files"][name] = entry

    edit_manifest(bundle, change)
    refuses(bundle, "which leaves the bundle; refused")


@pytest.mark.parametrize("name", ["a\x00b", "x" * 5000, "\udcff"], ids=["nul", "long", "surrogate"])
def test_names_that_no_file_can_have_are_refused(bundle, name):
    edit_manifest(bundle, lambda m: m["files"].update({name: {"num_bytes": 0, "sha256": ""}}))
    refuses(bundle, "which is no file name|not JSON")


def test_a_link_out_of_the_bundle_is_refused(bundle):
    outside = bundle.parent / "outside.onnx"
    shutil.move(bundle / "state_kv.onnx", outside)
    (bundle / "state_kv.onnx").symlink_to(outside)
    refuses(bundle, "'state_kv.onnx', which leaves the bundle; refused")


def test_a_folder_linked_out_of_the_bundle_is_refused(bundle):
    shutil.move(bundle / "prompts", bundle.parent / "prompts")
    (bundle / "prompts").symlink_to(bundle.parent / "prompts")
    refuses(bundle, "which leaves the bundle; refused")


def test_links_that_go_round_are_refused(bundle):
    (bundle / "state_kv.onnx").unlink()
    (bundle / "state_kv.onnx").symlink_to("state_kv.onnx")
    refuses(bundle, "state_kv.onnx")


def test_a_link_to_the_bundle_is_a_bundle(tiny_bundle, tmp_path):
    (tmp_path / "link").symlink_to(tiny_bundle)
    open_bundle(tmp_path / "link", **OPTIONS)


def first_input(m, graph="state_kv"):
    return m["graphs"][graph]["inputs"][0]


MISMATCHES = [
    lambda m: m["graphs"]["state_kv"]["outputs"].pop(),
    lambda m: first_input(m).update(dtype="float16"),
    lambda m: first_input(m).update(shape=[1, 13]),
    lambda m: first_input(m).update(shape=[14]),
    lambda m: first_input(m).update(shape=[1, "dim"]),
    lambda m: first_input(m, "cache_update").update(shape=[1, 6, 1, 4, 6]),
    lambda m: m["graphs"]["action_step"]["outputs"].append(
        {"name": "extra", "shape": [1], "dtype": "float32", "meaning": "none"}
    ),
]


@pytest.mark.parametrize("change", MISMATCHES)
def test_a_graph_with_other_tensors_than_the_manifest_is_refused(bundle, change):
    edit_manifest(bundle, change)
    with pytest.raises(
        BundleError, match=r"are not those of the manifest; .*differ in|not fit the"
    ):
        open_bundle(bundle, **OPTIONS)


def swap_graphs(m):
    graphs = m["graphs"]
    graphs["vae_first"], graphs["state_kv"] = graphs["state_kv"], graphs["vae_first"]


DO_NOT_FIT = [
    (swap_graphs, "state_kv"),
    (lambda m: m["graphs"]["prompt_kv"].update(outputs=[]), "action_step"),
    (lambda m: m["graphs"]["state_kv"]["inputs"].clear(), "state_kv"),
    (lambda m: first_input(m).update(name="joints"), "state_kv"),
    (lambda m: m["graphs"]["cache_update"]["inputs"].pop(6), "cache_update"),
    (lambda m: m["graphs"]["action_step"]["inputs"].pop(0), "action_step"),
    (
        lambda m: m.update(cache_write="copy" if NEWEST_OPSET == 24 else "in_place"),
        "action_step",
    ),
    (
        lambda m: m["graphs"]["vae_image"]["inputs"].append(
            {"name": "extra", "shape": [1], "dtype": "float32", "meaning": "none"}
        ),
        "vae_image",
    ),
    (lambda m: m["graphs"]["vae_image"]["outputs"].pop(0), "vae_pair"),
    (lambda m: m["graphs"]["vae_pair"]["outputs"].pop(1), "vae_group"),
]


@pytest.mark.parametrize(("change", "graph"), DO_NOT_FIT)
def test_graphs_that_do_not_fit_together_are_refused(bundle, change, graph):
    edit_manifest(bundle, change)
    refuses(bundle, f"graph '{graph}' does not fit the others or the contract: .*export the check")


def rehash(bundle, name):
    entry = {"num_bytes": (bundle / name).stat().st_size, "sha256": sha256_of(bundle / name)}
    edit_manifest(bundle, lambda m: m["files"].update({name: entry}))


def test_a_graph_that_is_none_is_refused(bundle):
    (bundle / "state_kv.onnx").write_bytes(b"not onnx")
    rehash(bundle, "state_kv.onnx")
    with pytest.raises(BundleError, match=r"onnxruntime .* cannot load state_kv.onnx"):
        open_bundle(bundle, **OPTIONS)


def test_weights_that_a_graph_expects_elsewhere_are_refused(bundle):
    (bundle / "weights.safetensors").write_bytes(b"")
    rehash(bundle, "weights.safetensors")
    with pytest.raises(BundleError, match=r"cannot load .*\.onnx"):
        open_bundle(bundle, **OPTIONS)


def test_graphs_point_into_the_one_weights_file(tiny_bundle):
    for name in FILES[1:]:
        model = onnx.load(tiny_bundle / name, load_external_data=False)
        places = {
            entry.value
            for tensor in model.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        assert places == {"weights.safetensors"}


def test_prompts_are_read_as_the_manifest_describes_them(tiny_bundle):
    manifest = read_manifest(tiny_bundle)
    arrays = read_prompt(tiny_bundle, manifest, "random")
    specs = manifest.graphs["prompt_kv"].outputs
    bias = next(s for s in manifest.graphs["action_step"].inputs if s.name == "text_bias")
    assert list(arrays) == [spec.name for spec in specs] + ["text_bias"]
    for spec in (*specs, bias):
        spec.validate(arrays[spec.name])
        assert np.isfinite(arrays[spec.name]).all()


def test_an_unknown_instruction_lists_the_known(tiny_bundle):
    manifest = read_manifest(tiny_bundle)
    with pytest.raises(
        InputError, match=r"does not hold the instruction 'fly'; it holds 'random'; add it with"
    ):
        read_prompt(tiny_bundle, manifest, "fly")
    empty = msgspec.structs.replace(manifest, prompts=())
    with pytest.raises(InputError, match="it holds none; add it with"):
        read_prompt(tiny_bundle, empty, "random")


def test_a_prompt_damaged_after_the_check_is_refused(bundle):
    manifest = check_bundle(bundle)
    path = bundle / manifest.prompts[0].file
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BundleError, match=r"has \d+ bytes; expected \d+"):
        read_prompt(bundle, manifest, "random")


@pytest.fixture(scope="module")
def fuzzed(tiny_bundle, tmp_path_factory):
    """A copy whose manifest each example replaces."""
    bundle = copy_of(tiny_bundle, tmp_path_factory.mktemp("fuzzed"))
    return bundle, json.loads((bundle / "manifest.json").read_bytes())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_fuzzed_manifest_opens_or_is_a_bundle_error(fuzzed, data):
    bundle, parsed = fuzzed
    (bundle / "manifest.json").write_text(json.dumps(data.draw(mutated(parsed))))
    try:
        session = open_bundle(bundle, **OPTIONS)
    except BundleError as error:
        assert str(error)  # noqa: PT017 - both ends are legal
    else:
        assert session.memory.num_frames == 0
