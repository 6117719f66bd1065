"""Upstream's own files, from description to a verified bundle, through the program."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file
from tests.fakes.checkpoints import FASTWAM, TINY, tensors_of, write_stats
from tests.fakes.upstream import parts_of, vae_tensors, write_cache_entry, write_fastwam

from memorywam_export.bundles.bundle import ExportOptions, export_bundle
from memorywam_export.checkpoints.checkpoint import Companions, checkpoint_from_argument
from memorywam_export.checkpoints.weights import write_weights
from memorywam_export.graphs.folding import rewritten_weights
from memorywam_export.graphs.rewrites import rewrites_for
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.cli import main
from memorywam_runtime.contract import contract_to_json

TEXT = "stack the cups"
OPTIONS = ExportOptions(max_frames=8)


@pytest.fixture
def call(capsys):
    """Run the program; return its exit status and the parsed JSON."""

    def called(*words):
        status = main([*map(str, words), "--json", "-"])
        told = capsys.readouterr()
        assert told.out, told.err
        return status, json.loads(told.out)["data"]

    return called


def test_a_fastwam_checkpoint_exports_with_no_code(call, tmp_path):
    write_fastwam(tmp_path, FASTWAM)
    rows = torch.randn(3, FASTWAM.text_dim, generator=torch.Generator().manual_seed(1))
    write_cache_entry(tmp_path / "cache", TEXT, rows.bfloat16(), FASTWAM.conventions.text_len)
    write_cache_entry(tmp_path / "cache", "later", rows[:2], FASTWAM.conventions.text_len)
    checkpoint, bundle = tmp_path / "step_010000.pt", tmp_path / "bundle"
    beside = ("--vae", tmp_path / "Wan2.2_VAE.pth", "--text-cache", tmp_path / "cache")

    status, told = call("export", "--describe", checkpoint, *beside)
    assert status == 0
    assert (told["name_map"], told["is_certain"]) == ("fastwam", True)
    assert [need["what"] for need in told["needs"] if not need["found"]] == ["contract"]
    (preset,) = (name for name, reasons in told["presets"].items() if not reasons)

    wanted = (*beside, "--instruction", TEXT)
    status, exported = call("export", checkpoint, "--preset", preset, *wanted, "--out", bundle)
    assert status == 0
    assert exported["name_map"] == "fastwam"
    assert exported["prompts"] == [TEXT]

    status, checks = call("verify", bundle, "--checkpoint", checkpoint, *wanted, "--frames", 2)
    assert (status, checks["verdict"]) == (0, "ok")

    words = ("prompt", bundle, "--add", "later", "--text-cache", tmp_path / "cache")
    status, prompts = call(*words)
    assert [entry["num_tokens"] for entry in prompts["prompts"]] == [3, 2]
    assert prompts["prompts"][1]["encoder"].startswith("text cache ")
    check_bundle(bundle)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Weights under our own names, and the bundle that they make."""
    folder = tmp_path_factory.mktemp("ours")
    tensors = tensors_of(TINY)
    save_file(tensors, folder / "model.safetensors")
    (folder / "contract.json").write_bytes(contract_to_json(TINY))
    write_stats(folder, TINY)
    torch.save(vae_tensors(TINY, tensors), folder / "Wan2.2_VAE.pth")
    export_bundle(checkpoint_from_argument(str(folder)), folder / "bundle", OPTIONS)
    return folder


def read_as(name_map, ours):
    """Write the weights under a map's names, and read them back."""
    path = ours / f"{name_map}.pt"
    torch.save(parts_of(name_map, tensors_of(TINY)), path)
    beside = Companions(
        vae_path=ours / "Wan2.2_VAE.pth",
        stats_path=ours / "dataset_stats.json",
        name_map=name_map if name_map == "mem-wam-per-frame" else None,
    )
    checkpoint = checkpoint_from_argument(str(path), contract=TINY, companions=beside)
    assert checkpoint.name_map == name_map
    return checkpoint


def hashes_of(bundle):
    files = [path for path in bundle.iterdir() if path.suffix in (".safetensors", ".onnx")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name_map", ["fastwam", "lerobot", "memorywam-robomme"])
def test_the_same_weights_under_any_names_give_the_same_bytes(ours, tmp_path, name_map):
    made = rewritten_weights(
        read_as(name_map, ours).weights, TINY, rewrites_for(TINY), torch.float32
    )
    write_weights(tmp_path / "weights.safetensors", made)
    assert hashes_of(tmp_path) == {
        "weights.safetensors": hashes_of(ours / "bundle")["weights.safetensors"]
    }


@pytest.mark.proof
def test_a_whole_bundle_is_the_same_too(ours, tmp_path):
    export_bundle(read_as("mem-wam-per-frame", ours), tmp_path / "bundle", OPTIONS)
    found = hashes_of(tmp_path / "bundle")
    assert {"weights.safetensors", "cache_update.onnx", "action_step.onnx"} <= set(found)
    assert found == hashes_of(ours / "bundle")
