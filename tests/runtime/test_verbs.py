"""The verbs inspect and bench, as a user calls them."""

import json
import subprocess
import sys

import pytest
from safetensors import safe_open
from tests.fakes.bundles import copy_of
from tests.fakes.rungs import NEWEST_OPSET

from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.cli import main
from memorywam_runtime.errors import BundleError
from memorywam_runtime.weight_bytes import weight_bytes_by_type


def test_inspect_tells_what_a_bundle_holds(tiny_bundle, capsys):
    assert main(["inspect", str(tiny_bundle), "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    manifest = read_manifest(tiny_bundle)
    assert data["contract_hash"] == manifest.contract_hash
    assert set(data["graphs"]) == set(manifest.graphs)
    for name, graph in data["graphs"].items():
        assert graph["bytes"] == (tiny_bundle / graph["file"]).stat().st_size, name
    assert [prompt["text"] for prompt in data["prompts"]] == ["random"]
    assert data["versions"]["torch"]


def test_inspect_tells_how_memory_grows_bucket_by_bucket(tiny_bundle, capsys):
    main(["inspect", str(tiny_bundle), "--json", "-"])
    memory = json.loads(capsys.readouterr().out)["data"]["memory"]
    sizes = {row["frames"]: row for row in memory["by_frames"]}
    assert list(sizes) == [1, 10, 32, 64, 100, 128, 256]
    # Five slots of 6 visual and 2 gist tokens, 16 of a chunk, then 2 gist tokens a frame.
    assert sizes[10]["rows"] == 5 * 8 + 16 + 32 * 2
    assert sizes[100]["rows"] == 5 * 8 + 16 + 128 * 2
    bytes_per_token = 2 * 3 * 2 * 12 * 4  # keys and values, layers, heads, head_dim, float32
    assert sizes[256]["bytes"] == (5 * 8 + 16 + 256 * 2) * bytes_per_token
    assert sizes[256]["full_history_bytes"] == 256 * 6 * bytes_per_token
    assert memory["update_bytes"] == (6 + 2 + 2) * bytes_per_token  # gist tokens twice


def test_inspect_tells_what_is_quantized(tiny_bundle_in_place, tmp_path, capsys):
    bundle = tmp_path / "narrow"
    manifest = quantize_bundle(tiny_bundle_in_place, bundle, RECIPES["int8-weight"])
    assert manifest.quantization is not None
    assert main(["inspect", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert "writes 5,760 bytes in place, however full it is" in text
    assert "none: run `memorywam calibrate`" in text
    assert f"{len(manifest.quantization.sites)} products; " in text
    assert main(["inspect", str(bundle), "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["quantization"] == {
        "recipe": "int8-weight",
        "num_sites": len(manifest.quantization.sites),
        "num_wide": len(manifest.quantization.wide),
        "window": None,
        "table": None,
    }
    with safe_open(bundle / "weights.safetensors", "np") as file:
        arrays = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - not a dict
    for kind, count in data["weight_bytes"].items():
        assert count == sum(array.nbytes for array in arrays if str(array.dtype) == kind)
    assert set(data["weight_bytes"]) == {"float32", "int8"}
    assert main(["inspect", str(tiny_bundle_in_place), "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert (data["quantization"], set(data["weight_bytes"])) == (None, {"float32"})


NESTED = (1 << 17).to_bytes(8, "little") + b"[" * (1 << 17)
"""A header that says its length rightly, and is nothing but brackets."""


@pytest.mark.parametrize("content", [b"nothing of the kind", NESTED], ids=["other", "nested"])
def test_weights_without_a_header_are_refused(tmp_path, content):
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match="expected a safetensors file"):
        weight_bytes_by_type(tmp_path / "weights.safetensors")


def test_inspect_lists_every_tensor_of_a_graph(tiny_bundle, capsys):
    assert main(["inspect", str(tiny_bundle), "--graph", "cache_update"]) == 0
    text = capsys.readouterr().out
    assert ("slot_row" in text) == (NEWEST_OPSET == 24)
    assert "1 x 2 x rows x 12" in text
    assert "latent frame, unit variance" in text
    assert main(["inspect", str(tiny_bundle), "--graph", "other"]) == 2
    assert "vae_first" in capsys.readouterr().err


def test_inspect_notices_damage(tiny_bundle, tmp_path, capsys):
    copy = copy_of(tiny_bundle, tmp_path)
    with (copy / "state_kv.onnx").open("r+b") as file:
        file.write(b"\0\0")
    assert main(["inspect", str(copy)]) == 2
    assert "state_kv.onnx hashes to" in capsys.readouterr().err


def test_inspect_loads_no_engine(tiny_bundle):
    code = (
        "import sys; from memorywam_runtime.cli import main; "
        f"status = main(['inspect', {str(tiny_bundle)!r}]); "
        "loaded = {'onnxruntime', 'torch', 'onnx'} & set(sys.modules); "
        "sys.exit(f'{status} {loaded}' if status or loaded else 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_bench_tells_every_stage_at_every_fill(tiny_bundle, tmp_path, capsys):
    file = tmp_path / "bench.json"
    words = ["bench", str(tiny_bundle), "--frames", "1,4", "--repeat", "2", "--threads", "1"]
    assert main([*words, "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert "opened in" in text
    assert all(stage in text for stage in ("vae_first", "cache_update", "action_step", "tick"))
    data = json.loads(file.read_text())["data"]
    assert [entry["frames"] for entry in data["by_frames"]] == [1, 4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--frames", "1,257"), "the bundle's memory holds 256"),
        (("--frames", "0"), "at least 1"),
        (("--frames", "many"), "such as 1,10,100"),
        (("--repeat", "0"), "at least 1"),
        (("--steps", "0"), "denoising steps"),
        (("--backend", "other"), "expected one of ort, "),
    ],
    ids=str,
)
def test_bench_refuses_what_it_cannot_measure(tiny_bundle, words, said, capsys):
    assert main(["bench", str(tiny_bundle), *words]) == 2
    assert said in capsys.readouterr().err
