"""Instructions of a bundle: added, listed, removed, and the bundle stays whole."""

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from tests.fakes.bundles import TINY, copy_of

from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.eager.eager import model_from_tensors
from memorywam_export.text.prompts import (
    add_prompt,
    context_from_embedding,
    embedding_from_file,
    remove_prompt,
)
from memorywam_runtime import Policy, open_bundle
from memorywam_runtime.bundle import check_bundle, read_prompt
from memorywam_runtime.errors import BundleError, InputError, MemorywamError

CONTRACT = contract_from_preset("tiny")
ROWS = np.random.default_rng(0).standard_normal((3, CONTRACT.text_dim)).astype(np.float32)


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return copy_of(tiny_bundle, tmp_path)


def state_of(bundle):
    """Return every file's content."""
    return {p.relative_to(bundle): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}


def prompt_files(bundle):
    return {f"prompts/{path.name}" for path in (bundle / "prompts").iterdir()}


def reference_of(rows):
    """Return the keys and values that the reference makes of an embedding, in the graph's order."""
    weights = {w.name: w.load() for w in checkpoint_from_argument(TINY).weights}
    model = model_from_tensors(CONTRACT, weights, torch.float32)
    with torch.no_grad():
        video, action = model.text_keys_values(
            torch.from_numpy(context_from_embedding(rows, CONTRACT))
        )
    return [t.numpy() for pair in (*video[:-1], *action) for t in pair]


def test_an_added_instruction_has_the_references_keys_and_values(bundle):
    manifest = add_prompt(bundle, "stack the cups", ROWS, "umt5 abc")
    assert check_bundle(bundle) == manifest
    assert [p.text for p in manifest.prompts] == ["random", "stack the cups"]
    entry = manifest.prompt("stack the cups")
    assert entry is not None
    assert entry.num_tokens == 3
    assert entry.encoder == "umt5 abc"
    found = read_prompt(bundle, manifest, "stack the cups")
    bias = found.pop("text_bias")[0, 0, 0]
    np.testing.assert_allclose(bias, [0, 0, 0, np.log(2), -1e9], rtol=1e-6)
    for (name, array), wanted in zip(found.items(), reference_of(ROWS), strict=True):
        # float32, sums of 10 to 24 products; measured: 5e-7.
        np.testing.assert_allclose(array, wanted, rtol=0, atol=5e-6, err_msg=name)
        assert np.abs(array).max() > 0.01
    session = open_bundle(bundle, num_threads=1, spin=False)
    Policy(session).reset("stack the cups")


def test_what_came_with_the_checkpoint_equals_what_the_graph_makes(bundle):
    rows = checkpoint_from_argument(TINY).prompts["random"]
    exported = read_prompt(bundle, check_bundle(bundle), "random")
    manifest = add_prompt(bundle, "again", rows, "test")
    for name, array in read_prompt(bundle, manifest, "again").items():
        np.testing.assert_allclose(array, exported[name], rtol=0, atol=5e-6)


def test_the_zero_rows_of_the_padding_stay_visible(bundle):
    manifest = add_prompt(bundle, "short", ROWS[:1], "test")
    padded = np.zeros((5, CONTRACT.text_dim), np.float32)
    padded[0] = ROWS[0]
    manifest = add_prompt(bundle, "long", padded, "test")
    short, long = (read_prompt(bundle, manifest, text) for text in ("short", "long"))
    query = np.random.default_rng(1).standard_normal(long["video_text.00.k"].shape[-1])

    def attended(prompt):
        k, v = prompt["video_text.00.k"], prompt["video_text.00.v"]
        weights = np.exp(k @ query + prompt["text_bias"][:, :, 0])
        return (weights[..., None] * v).sum(2) / weights.sum(2)[..., None]

    # One row for four in the short one, four rows in the long one.
    np.testing.assert_allclose(attended(short), attended(long), rtol=0, atol=1e-6)
    for name in set(short) - {"text_bias"}:
        np.testing.assert_array_equal(short[name], long[name])
    assert (short["text_bias"] != long["text_bias"]).any()
    entries = [manifest.prompt(text) for text in ("short", "long")]
    assert [e.num_tokens for e in entries if e] == [1, 5]


def test_a_removed_instruction_is_gone_with_its_file(bundle):
    before = state_of(bundle)
    entry = add_prompt(bundle, "stack the cups", ROWS, "test").prompt("stack the cups")
    assert entry is not None
    assert prompt_files(bundle) >= {entry.file}
    manifest = remove_prompt(bundle, "stack the cups")
    assert check_bundle(bundle) == manifest
    assert state_of(bundle) == before
    with pytest.raises(InputError, match="does not hold the instruction 'stack the cups'"):
        read_prompt(bundle, manifest, "stack the cups")


def test_the_last_instruction_may_be_removed(bundle):
    manifest = remove_prompt(bundle, "random")
    assert manifest.prompts == ()
    assert prompt_files(bundle) == set()
    assert check_bundle(bundle) == manifest
    add_prompt(bundle, "random", ROWS, "test")
    assert len(check_bundle(bundle).prompts) == 1


def test_adding_again_replaces_and_leaves_no_file_behind(bundle):
    add_prompt(bundle, "stack", ROWS, "old encoder")
    manifest = add_prompt(bundle, "stack", ROWS[:2], "new encoder")
    entry = manifest.prompt("stack")
    assert entry is not None
    assert (entry.num_tokens, entry.encoder) == (2, "new encoder")
    assert len(manifest.prompts) == 2
    assert prompt_files(bundle) == {p.file for p in manifest.prompts}
    assert check_bundle(bundle) == manifest
    # The very same again changes nothing at all.
    before = state_of(bundle)
    add_prompt(bundle, "stack", ROWS[:2], "new encoder")
    assert state_of(bundle) == before


def test_two_instructions_never_share_a_file(bundle):
    add_prompt(bundle, "b\nc", ROWS, "a")
    manifest = add_prompt(bundle, "c", ROWS[:2], "a\nb")
    assert len({p.file for p in manifest.prompts}) == 3
    check_bundle(bundle)


def test_a_failure_between_file_and_manifest_leaves_the_old_bundle(bundle, monkeypatch):
    """The file of the instruction that is replaced must not have been overwritten."""
    add_prompt(bundle, "stack", ROWS, "test")
    wanted = read_prompt(bundle, check_bundle(bundle), "stack")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("memorywam_export.text.prompts._rewrite", fail)
    with pytest.raises(OSError, match="No space left"):
        add_prompt(bundle, "stack", 2 * ROWS, "test")
    found = read_prompt(bundle, check_bundle(bundle), "stack")
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("text", ["put 食べ物 back", "Käse", "a" * 5000, "two\nlines", "../../etc"])
def test_any_text_is_an_instruction(bundle, text):
    manifest = add_prompt(bundle, text, ROWS, "test")
    assert check_bundle(bundle) == manifest
    assert read_prompt(bundle, manifest, text)
    remove_prompt(bundle, text)


def refused(bundle, message, call, *, error: type[MemorywamError] = InputError):
    before = state_of(bundle)
    with pytest.raises(error, match=message):
        call()
    assert state_of(bundle) == before


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_instruction_is_refused(bundle, text):
    refused(bundle, "found an empty instruction", lambda: add_prompt(bundle, text, ROWS, "test"))


@pytest.mark.parametrize("shape", [(6, 10), (0, 10), (3, 9), (3, 11), (10,), (1, 3, 10), ()])
def test_an_embedding_of_another_shape_is_refused(bundle, shape):
    message = rf"text embedding: found \[{', '.join(map(str, shape))}\]; expected 1 to 5 rows of 10"
    refused(bundle, message, lambda: add_prompt(bundle, "a", np.ones(shape, np.float32), "test"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_is_refused(bundle, value):
    rows = ROWS.copy()
    rows[1, 2] = value
    message = "text embedding: found a value that is not finite; encode the text again"
    refused(bundle, message, lambda: add_prompt(bundle, "a", rows, "test"))


def test_removing_what_is_not_there_lists_what_is(bundle):
    message = r"does not hold 'fly'; it holds 'random'"
    refused(bundle, message, lambda: remove_prompt(bundle, "fly"))


def test_a_damaged_bundle_is_not_added_to(bundle):
    path = bundle / "prompt_kv.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    message = "prompt_kv.onnx has"
    refused(bundle, message, lambda: add_prompt(bundle, "a", ROWS, "test"), error=BundleError)
    refused(bundle, message, lambda: remove_prompt(bundle, "random"), error=BundleError)


def test_embeddings_are_read_from_files(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    save_file({"any": ROWS}, tmp_path / "a.safetensors")
    np.save(tmp_path / "half.npy", ROWS.astype(np.float16))
    save_torch({"any": torch.from_numpy(ROWS).bfloat16()}, tmp_path / "b.safetensors")
    for name in ("a.npy", "a.safetensors"):
        np.testing.assert_array_equal(embedding_from_file(tmp_path / name), ROWS)
    for name in ("half.npy", "b.safetensors"):
        found = embedding_from_file(tmp_path / name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, ROWS, rtol=2**-8)


@pytest.mark.parametrize("name", ["a.npy", "a.safetensors", "a.txt", "nowhere.npy"])
def test_files_that_hold_no_embedding_are_refused(tmp_path, name):
    if name != "nowhere.npy":
        (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(
        InputError, match=rf"cannot read an embedding from .*{name}: .*expected a .npy"
    ):
        embedding_from_file(tmp_path / name)


def test_files_with_several_tensors_or_objects_are_refused(tmp_path):
    save_file({"a": ROWS, "b": ROWS}, tmp_path / "two.safetensors")
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name in ("two.safetensors", "object.npy"):
        with pytest.raises(InputError, match="cannot read an embedding"):
            embedding_from_file(tmp_path / name)


def test_the_context_is_the_embedding_then_zeros():
    context = context_from_embedding(ROWS, CONTRACT)
    assert context.shape == (1, 5, 10)
    assert context.dtype == np.float32
    np.testing.assert_array_equal(context[0, :3], ROWS)
    assert not context[0, 3:].any()
    longer = msgspec.structs.replace(CONTRACT.conventions, text_len=9)
    contract = msgspec.structs.replace(CONTRACT, conventions=longer)
    assert context_from_embedding(ROWS, contract).shape == (1, 9, 10)
