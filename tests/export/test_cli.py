"""The verbs export, prompt and verify, as a user calls them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tests.fakes.bundles import TINY, copy_of

from memorywam_runtime.bundle import check_bundle, open_bundle, read_prompt
from memorywam_runtime.cli import main
from memorywam_runtime.contract import contract_from_json


@pytest.fixture
def call(capsys):
    """Run the program; return its exit status, the parsed JSON (or None) and what it said."""

    def called(*words):
        status = main([str(word) for word in words])
        told = capsys.readouterr()
        document = json.loads(told.out) if "--json" in words and told.out else None
        return status, document, told.out + told.err

    return called


def test_presets_are_listed_with_everything_a_contract_says(call):
    status, document, _ = call("export", "--list-presets", "--json", "-")
    assert status == 0
    presets = document["data"]["presets"]
    assert {"robotwin-384x320", "fastwam", "tiny"} <= set(presets)
    for entry in presets.values():
        assert contract_from_json(json.dumps(entry["contract"]).encode()).hash == entry["hash"]
    assert "robotwin-384x320" in call("export", "--list-presets")[2]


def test_export_tells_what_it_wrote(call, tmp_path):
    out = tmp_path / "bundle"
    status, document, _ = call(
        "export", "random:tiny-fastwam:3", "--out", out, "--max-frames", 8, "--json", "-"
    )
    assert status == 0
    data = document["data"]
    manifest = check_bundle(out)
    assert manifest.memory.max_frames == 8
    assert set(data["graphs"]) == set(manifest.graphs)
    assert data["graphs"]["state_kv"]["inputs"] == 1
    assert data["contract_hash"] == manifest.contract_hash
    assert data["bytes"] > data["graphs"]["state_kv"]["bytes"] > 0
    assert data["seconds"] > 0
    status, _, text = call("export", "random:tiny-fastwam", "--out", out)
    assert status == 2
    assert "--overwrite" in text
    assert data["peak_memory_bytes"] > 1 << 20


def test_help_presets_and_contracts_do_not_wait_for_torch(tmp_path):
    words = [("--help",), ("--list-presets",), ("--preset", "tiny", "--write-contract", "c.json")]
    code = (
        "import sys; from memorywam_runtime.cli import main\n"
        f"done = [main(['export', *words]) for words in {words!r}]\n"
        "sys.exit(done != [0, 0, 0] or 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c.json").is_file()


def test_a_contract_is_written_to_be_changed_and_read_back(call, tmp_path):
    file = tmp_path / "mine.json"
    words = ("export", "--preset", "tiny", "--write-contract", file)
    status, _, text = call(*words)
    assert status == 0
    assert f"{file}: contract 'tiny' " in text
    changed = file.read_text().replace('"num_recent": 3', '"num_recent": 4')
    file.write_text(changed)
    status, _, text = call(*words)
    assert status == 2
    assert "may have been changed" in text
    assert file.read_text() == changed
    assert contract_from_json(file.read_bytes()).memory.num_recent == 4
    status, _, text = call("export", "--write-contract", tmp_path / "other.json")
    assert status == 2
    assert "without --preset NAME" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("random:nothing",), "available presets: robotwin-384x320"),
        (("random:tiny", "--preset", "nothing"), "available presets"),
        (("absent.safetensors",), "no checkpoint at absent.safetensors"),
        (("random:tiny", "--max-frames", "0"), "at least 1"),
        (("random:tiny", "--opset", "19"), "expected 20 to 25"),
        (("random:tiny", "--graph", "other"), "action_denoise"),
        (("random:tiny", "--contract", "absent.json"), "absent.json"),
    ],
    ids=str,
)
def test_export_refuses_what_it_cannot_do(call, tmp_path, words, said):
    status, _, text = call("export", *words, "--out", tmp_path / "bundle")
    assert status == 2
    assert said in text
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_a_checkpoint_without_a_contract(call, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    status, _, text = call("export", tmp_path, "--out", tmp_path / "bundle")
    assert status == 2
    assert "pass --contract FILE or --preset NAME" in text


def test_export_leaves_a_directory_in_use_alone(call, tmp_path):
    (tmp_path / "mine").write_text("mine")
    status, _, text = call("export", "random:tiny", "--out", tmp_path)
    assert status == 2
    assert "is not empty" in text
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_export_needs_both_ends(call):
    status, _, text = call("export", "random:tiny")
    assert status == 2
    assert "--out" in text


def test_prompts_are_added_listed_and_removed(call, tiny_bundle, tmp_path):
    bundle = copy_of(tiny_bundle, tmp_path)
    file = tmp_path / "rows.npy"
    np.save(file, np.random.default_rng(1).standard_normal((3, 10), np.float32))
    status, document, _ = call(
        "prompt", bundle, "--add", "open the box", "--embedding", file, "--json", "-"
    )
    assert status == 0
    added = document["data"]["prompts"][-1]
    assert (added["text"], added["num_tokens"]) == ("open the box", 3)
    assert added["encoder"].startswith("rows.npy sha256:")
    session = open_bundle(bundle)
    session.reset(read_prompt(bundle, session.manifest, "open the box"))
    assert "open the box" in call("prompt", bundle, "--list")[2]
    assert call("prompt", bundle, "--remove", "open the box")[0] == 0
    status, _, text = call("prompt", bundle, "--remove", "open the box")
    assert status == 2
    assert "'random'" in text
    assert [entry.text for entry in check_bundle(bundle).prompts] == ["random"]


def test_a_prompt_needs_its_embedding(call, tiny_bundle, tmp_path):
    status, _, text = call("prompt", tiny_bundle, "--add", "open the box")
    assert status == 2
    assert "--embedding FILE, or --encoder DIR" in text
    assert call("prompt", tiny_bundle, "--list", "--embedding", "x.npy")[0] == 2
    np.save(tmp_path / "wide.npy", np.zeros((3, 11), np.float32))
    status, _, text = call(
        "prompt", tiny_bundle, "--add", "x", "--embedding", tmp_path / "wide.npy"
    )
    assert status == 2
    assert "1 to 5 rows of 10" in text


def test_verify_tells_the_verdict_by_its_status(call, tiny_bundle):
    words = ("verify", tiny_bundle, "--no-record", "--checkpoint")
    status, document, _ = call(*words, TINY, "--frames", 3, "--json", "-")
    assert (status, document["data"]["verdict"]) == (0, "ok")
    status, _, text = call(*words, "random:tiny:1", "--frames", 1)
    assert status == 1
    assert "FAILED" in text
    assert "209 differ: gist_tokens" in text
    status, _, text = call(*words, "random:tiny-fastwam")
    assert status == 1
    assert "the first that fails: contract" in text


def test_verify_refuses_what_is_no_bundle(call, tmp_path):
    status, _, text = call("verify", tmp_path, "--checkpoint", TINY)
    assert status == 2
    assert "no bundle" in text
