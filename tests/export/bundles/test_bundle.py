"""A checkpoint to a bundle: the same bytes every time, and whole or not at all."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fakes.bundles import TINY
from tests.fakes.rungs import NEWEST_OPSET

from memorywam_export.bundles import bundle as bundle_module
from memorywam_export.bundles.bundle import ExportOptions, export_bundle
from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.checkpoints.weights import Weight, write_weights
from memorywam_runtime.bundle import check_bundle, read_manifest
from memorywam_runtime.errors import CheckpointError, InputError
from memorywam_runtime.files import sha256_of

WEIGHT_REWRITES = ("fold-modulation", "rope-halves")
"""Without these, weights are the checkpoint's."""


@pytest.fixture
def folder(tmp_path):
    """Where nothing but the result may be left."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """The tiny bundle once more, from a safetensors file on disk, under a name in Unicode."""
    folder = tmp_path_factory.mktemp("second")
    checkpoint = checkpoint_from_argument(TINY)
    source = folder / "model.safetensors"
    write_weights(source, checkpoint.weights)
    linked = dataclasses.replace(checkpoint, weights_path=source)
    path = folder / "Käse 食べる bundle"
    manifest = export_bundle(linked, path)
    return source, path, manifest


def hashes(bundle):
    return {
        path.relative_to(bundle).as_posix(): sha256_of(path)
        for path in bundle.rglob("*")
        if path.is_file()
    }


def test_two_exports_of_one_checkpoint_are_the_same_bytes(tiny_bundle, second):
    _, path, manifest = second
    assert check_bundle(path) == manifest
    assert hashes(path) == hashes(tiny_bundle)


def test_weights_of_the_right_type_are_copied_and_not_linked(second, folder):
    """onnx refuses external data with more than one link; and who trains on must not break it."""
    source, _, _ = second
    linked = dataclasses.replace(checkpoint_from_argument(TINY), weights_path=source)
    copy = folder / "weights.safetensors"
    bundle_module._write_weights(linked, copy, torch.float32)
    assert copy.stat().st_nlink == 1
    assert not copy.is_symlink()
    assert not copy.samefile(source)
    assert copy.read_bytes() == source.read_bytes()


def test_a_bundle_can_be_read_by_all(second):
    """A draft made privately must not leave a bundle that only its maker can open."""
    source, path, _ = second
    plain = source.with_name("plain")
    plain.mkdir()
    assert path.stat().st_mode == plain.stat().st_mode
    assert (path / "manifest.json").stat().st_mode & 0o444 == source.stat().st_mode & 0o444


def test_the_manifest_tells_where_the_bundle_comes_from(tiny_bundle):
    manifest = read_manifest(tiny_bundle)
    assert manifest.source.checkpoint == TINY
    assert manifest.opset == NEWEST_OPSET
    assert manifest.precision == "fp32"
    assert {"memorywam", "torch", "onnx", "numpy"} <= set(manifest.versions)
    assert manifest.memory.max_frames == manifest.memory.gist_buckets[-1] == 256
    assert manifest.memory.bytes_per_token == 2 * 3 * 2 * 12 * 4  # k, v; layers; heads; dim; bytes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_weights_of_another_type_are_converted(folder, dtype):
    checkpoint = checkpoint_from_argument(TINY)
    source = folder / "model.safetensors"
    write_weights(source, checkpoint.weights)
    linked = dataclasses.replace(checkpoint, weights_path=source)
    target = folder / "weights.safetensors"
    bundle_module._write_weights(linked, target, dtype)
    found, wanted = load_file(target), load_file(source)
    assert set(found) == set(wanted)
    for name, tensor in found.items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, wanted[name].to(dtype))


def with_bad_weight(checkpoint, load):
    """Return the checkpoint with the weight in the middle replaced."""
    weights = list(checkpoint.weights)
    middle = len(weights) // 2
    old = weights[middle]
    weights[middle] = Weight(old.name, old.shape, old.dtype, load)
    return dataclasses.replace(checkpoint, weights=tuple(weights)), old.name


def test_a_weight_that_is_not_as_announced_leaves_nothing(folder):
    checkpoint, name = with_bad_weight(checkpoint_from_argument(TINY), lambda: torch.zeros(1, 1, 1))
    with pytest.raises(
        CheckpointError, match=rf"'{name}': found torch.float32 \[1, 1, 1\]; expected"
    ):
        export_bundle(checkpoint, folder / "bundle")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_nothing(folder, error):
    def fail():
        raise error

    checkpoint, _ = with_bad_weight(checkpoint_from_argument(TINY), fail)
    with pytest.raises(type(error)):
        export_bundle(checkpoint, folder / "bundle")
    assert list(folder.iterdir()) == []


def test_a_failure_while_overwriting_keeps_the_old_bundle(folder):
    old = folder / "bundle"
    old.mkdir()
    (old / "mine").write_text("mine")
    (old / "manifest.json").write_text('{"contract_hash": "", "files": ["mine"]}')
    checkpoint, _ = with_bad_weight(checkpoint_from_argument(TINY), lambda: torch.zeros(1, 1, 1))
    with pytest.raises(CheckpointError):
        export_bundle(checkpoint, old, ExportOptions(overwrite=True))
    assert sorted(path.name for path in old.iterdir()) == ["manifest.json", "mine"]
    assert list(folder.iterdir()) == [old]


def test_weights_that_do_not_fit_the_model_leave_nothing(folder):
    """A file that is copied unread must still be the model's."""
    checkpoint = checkpoint_from_argument(TINY)
    source = folder / "model.safetensors"
    save_file({"stranger": torch.zeros(1)}, source)
    wrong = dataclasses.replace(checkpoint, weights_path=source)
    with pytest.raises(CheckpointError, match=r"does not hold the model's weights: .* among"):
        export_bundle(wrong, folder / "bundle", ExportOptions(no_rewrites=WEIGHT_REWRITES))
    assert list(folder.iterdir()) == [source]


def test_a_directory_in_use_is_refused_before_any_work(folder):
    target = folder / "bundle"
    target.mkdir()
    (target / "mine").write_text("mine")

    def fail():
        pytest.fail("the work began")

    checkpoint, _ = with_bad_weight(checkpoint_from_argument(TINY), fail)
    with pytest.raises(InputError, match="exists and is not empty"):
        export_bundle(checkpoint, target)
    with pytest.raises(InputError, match="is a file; expected a directory"):
        export_bundle(checkpoint, target / "mine")
    with pytest.raises(InputError, match="is not a directory"):
        export_bundle(checkpoint, folder / "no" / "where")
    assert (target / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 19}, "found opset 19; expected 20 to 25"),
        ({"opset": 26}, "found opset 26; expected 20 to 25"),
        ({"max_frames": 0}, "found max_frames 0; expected at least 1"),
        (
            {"on_full": "panic"},
            "unknown on_full 'panic'; expected one of refuse, stop, drop-oldest",
        ),
        ({"graphs": ("dream",)}, r"unknown optional graph \['dream'\]; expected action_denoise"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_any_work(folder, options, message):
    def fail():
        pytest.fail("the work began")

    checkpoint, _ = with_bad_weight(checkpoint_from_argument(TINY), fail)
    with pytest.raises(InputError, match=message):
        export_bundle(checkpoint, folder / "bundle", ExportOptions(**options))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("opset", "cache_write"), [(20, "copy"), (23, "copy"), (24, "in_place")])
def test_the_opset_decides_how_memory_is_written(opset, cache_write):
    assert ExportOptions(opset=opset).cache_write == cache_write
